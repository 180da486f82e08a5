/* Products of small matrices, float, that lie in the caches. */

#if defined(__AVX512F__)
#define WIDTH 16
#define LINES 8
#elif defined(__AVX__)
#define WIDTH 8
#define LINES 6
#else
#define WIDTH 4
#define LINES 6
#endif
#define PANEL (2 * WIDTH) /* columns that are computed together, for LINES lines, in registers */
#define PADDED(columns) (((columns) + PANEL - 1) / PANEL * PANEL)
typedef float wide __attribute__((vector_size(4 * WIDTH)));

const long panel = PANEL;

INLINE wide load_wide(const float *at)
{
    wide out;
    memcpy(&out, at, sizeof out);
    return out;
}

/* c = a b, or where `add` says so c += a b, for a panel of b and few lines of a, whose elements are
   a_line from one line and a_next from one column to the next. */
INLINE void few_lines(
    const float *a, long a_line, long a_next, const float *b, long b_line, float *c, long c_line,
    long depth, long add, const long lines)
{
    wide left[LINES], right[LINES];
    for (long i = 0; i < lines; i++) {
        left[i] = add ? load_wide(c + i * c_line) : (wide){0};
        right[i] = add ? load_wide(c + i * c_line + WIDTH) : (wide){0};
    }
    for (long k = 0; k < depth; k++) {
        const wide b_left = load_wide(b + k * b_line), b_right = load_wide(b + k * b_line + WIDTH);
        for (long i = 0; i < lines; i++) {
            const float factor = a[i * a_line + k * a_next];
            left[i] += factor * b_left;
            right[i] += factor * b_right;
        }
    }
    for (long i = 0; i < lines; i++) {
        memcpy(c + i * c_line, &left[i], sizeof(wide));
        memcpy(c + i * c_line + WIDTH, &right[i], sizeof(wide));
    }
}

/* The same for any number of lines, and a whole number of panels, b_panel from one to the next. */
static void product(
    const float *a, long a_line, long a_next, const float *b, long b_line, long b_panel, float *c,
    long c_line, long lines, long columns, long depth, long add)
{
    for (long n = 0; n < columns; n += PANEL, b += b_panel) {
        long m = 0;
        #define SOME(count) \
            few_lines(a + m * a_line, a_line, a_next, b, b_line, c + m * c_line + n, c_line, \
                      depth, add, count)
        for (; m + LINES <= lines; m += LINES)
            SOME(LINES);
        switch (lines - m) {
        case 1: SOME(1); break;
        case 2: SOME(2); break;
        case 3: SOME(3); break;
        case 4: SOME(4); break;
        case 5: SOME(5); break;
        #if LINES > 6
        case 6: SOME(6); break;
        case 7: SOME(7); break;
        #endif
        }
        #undef SOME
    }
}
