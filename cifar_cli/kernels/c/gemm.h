#ifndef GEMM_H
#define GEMM_H

/* GEMM of small float matrices that lie in the caches. */

#include "vectors.h"

#if defined(__AVX512F__)
#define WIDTH 16
#define ROWS 8
#elif defined(__AVX__)
#define WIDTH 8
#define ROWS 6
#else
#define WIDTH 4
#define ROWS 6
#endif
/* Columns that are computed together, for ROWS rows, in registers. */
#define PANEL (2 * WIDTH)
#define PADDED(columns) (((columns) + PANEL - 1) / PANEL * PANEL)
typedef float wide __attribute__((vector_size(4 * WIDTH)));

INLINE wide load_wide(const float *from)
{
    wide out;
    memcpy(&out, from, sizeof out);
    return out;
}

/* c = a b, or with `add` c += a b, for a panel of b and a few rows of a, whose elements are a_row
   from one row and a_column from one column to the next. */
INLINE void gemm_rows(
    const float *a, long a_row, long a_column, const float *b, long b_row, float *c, long c_row,
    long depth, long add, const long rows)
{
    wide left[ROWS], right[ROWS];
    for (long i = 0; i < rows; i++) {
        left[i] = add ? load_wide(c + i * c_row) : (wide){0};
        right[i] = add ? load_wide(c + i * c_row + WIDTH) : (wide){0};
    }
    for (long k = 0; k < depth; k++) {
        const wide b_left = load_wide(b + k * b_row), b_right = load_wide(b + k * b_row + WIDTH);
        for (long i = 0; i < rows; i++) {
            const float factor = a[i * a_row + k * a_column];
            left[i] += factor * b_left;
            right[i] += factor * b_right;
        }
    }
    for (long i = 0; i < rows; i++) {
        memcpy(c + i * c_row, &left[i], sizeof(wide));
        memcpy(c + i * c_row + WIDTH, &right[i], sizeof(wide));
    }
}

/* The same for any number of rows, and a whole number of panels, b_panel from one to the next. */
static inline void gemm(
    const float *a, long a_row, long a_column, const float *b, long b_row, long b_panel, float *c,
    long c_row, long rows, long columns, long depth, long add)
{
    for (long n = 0; n < columns; n += PANEL, b += b_panel) {
        long i = 0;
        #define GEMM_ROWS(count) \
            gemm_rows(a + i * a_row, a_row, a_column, b, b_row, c + i * c_row + n, c_row, depth, \
                      add, count)
        for (; i + ROWS <= rows; i += ROWS)
            GEMM_ROWS(ROWS);
        switch (rows - i) {
        case 1: GEMM_ROWS(1); break;
        case 2: GEMM_ROWS(2); break;
        case 3: GEMM_ROWS(3); break;
        case 4: GEMM_ROWS(4); break;
        case 5: GEMM_ROWS(5); break;
        #if ROWS > 6
        case 6: GEMM_ROWS(6); break;
        case 7: GEMM_ROWS(7); break;
        #endif
        }
        #undef GEMM_ROWS
    }
}

#endif
