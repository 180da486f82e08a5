#ifndef VECTORS_H
#define VECTORS_H

/* Vectors of channels, and the lines of pixels that a tile covers. */

#include <string.h>

/* Wide vectors are passed to inlined functions only, so that no calling convention matters. */
#pragma GCC diagnostic ignored "-Wpsabi"

#define INLINE static inline __attribute__((always_inline))
#define LANES 8
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int int_lanes __attribute__((vector_size(4 * LANES)));
typedef unsigned char byte_lanes __attribute__((vector_size(LANES)));

INLINE lanes load(const float *from, const long count)
{
    lanes out = {0};
    memcpy(&out, from, sizeof(float) * count);
    return out;
}

INLINE void store(float *to, const lanes values, const long count)
{
    memcpy(to, &values, sizeof(float) * count);
}

INLINE lanes select_lanes(const int_lanes mask, const lanes yes, const lanes no)
{
    return (lanes)(((int_lanes)yes & mask) | ((int_lanes)no & ~mask));
}

/* Channels-last images, and the tiles that cover each of them. */
typedef struct {
    long height, width, channels, tiles_down, tiles_across, reflect;
} image_sizes;

/* Offsets of `count` rows or columns, from `first` on, of `size` of them `stride` apart; -1 outside
   the image. Its border of one pixel may be reflected. */
INLINE void line_offsets(
    long *offsets, const long count, long first, long size, long reflect, long stride)
{
    for (long i = 0; i < count; i++) {
        long line = first + i;
        if (reflect && line == -1)
            line = 1;
        if (reflect && line == size)
            line = size - 2;
        offsets[i] = line >= 0 && line < size ? line * stride : -1;
    }
}

/* The pixels of a square window; zero outside the image. */
INLINE void load_window(
    const float *image, const long *ys, const long *xs, const long side, lanes *to, const long n)
{
    for (long i = 0; i < side; i++)
        for (long j = 0; j < side; j++) {
            const long is_inside = ys[i] >= 0 && xs[j] >= 0;
            to[i * side + j] = is_inside ? load(image + ys[i] + xs[j], n) : (lanes){0};
        }
}

/* Call f(..., count) for all channels: with the constant LANES as long as there are as many, which
   compiles to whole vectors, and once for the rest. */
#define ALL_CHANNELS(channels, f, ...) \
    { \
        long c = 0; \
        for (; c + LANES <= channels; c += LANES) \
            f(__VA_ARGS__, LANES); \
        if (c < channels) \
            f(__VA_ARGS__, channels - c); \
    }

#endif
