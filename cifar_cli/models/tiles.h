/* What Winograd's tiles of all sizes have in common; see tiles.c and winograd.c. */

#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define LANES 8
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int whole __attribute__((vector_size(4 * LANES)));
typedef unsigned char bytes __attribute__((vector_size(LANES)));

INLINE lanes load(const float *at, const long count)
{
    lanes out = {0};
    memcpy(&out, at, sizeof(float) * count);
    return out;
}

INLINE void store(float *at, const lanes what, const long count)
{
    memcpy(at, &what, sizeof(float) * count);
}

INLINE lanes chosen(const whole mask, const lanes yes, const lanes no)
{
    return (lanes)(((whole)yes & mask) | ((whole)no & ~mask));
}

/* Of an image, `down` x `across` tiles of it, and whether its border is reflected. */
typedef struct {
    long height, width, channels, down, across, reflect;
} sizes;

/* Of a convolution; `compiled_winograd.py` has the same. */
typedef struct {
    long images, height, width, inputs, outputs, reflect;
    long down, across;        /* tiles of an image */
    long threads;             /* for which there is memory; no other one may get a block */
    long blocks;              /* of images, whose tiles */
    long rows;                /* have so much room, each of them */
    long input_row, sum_row;  /* for so many inputs, and sums at a time */
    long room;                /* floats of scratch memory for a thread */
} layer;

const long size_of_layer = sizeof(layer);

int omp_get_thread_num(void);

/* Where the lines of a window begin in an image, -1 outside; a border of one may be reflected. */
INLINE void places(long *at, const long count, long first, long size, long reflect, long step)
{
    for (long i = 0; i < count; i++) {
        long place = first + i;
        if (reflect && place == -1)
            place = 1;
        if (reflect && place == size)
            place = size - 2;
        at[i] = place >= 0 && place < size ? place * step : -1;
    }
}

/* The window of a tile: lines from `first` pixels before the tile's own, `count` of them. */
#define WINDOW(count, first) \
    const long top = t / s.across % s.down * SIDE, left = t % s.across * SIDE; \
    long ys[count], xs[count]; \
    places(ys, count, top - first, s.height, s.reflect, s.width * s.channels); \
    places(xs, count, left - first, s.width, s.reflect, s.channels)

/* The pixels of a window, zero outside the image. */
INLINE void load_window(
    const float *image, const long *ys, const long *xs, const long side, lanes *into, const long n)
{
    for (long i = 0; i < side; i++)
        for (long j = 0; j < side; j++) {
            const long is_inside = ys[i] >= 0 && xs[j] >= 0;
            into[i * side + j] = is_inside ? load(image + ys[i] + xs[j], n) : (lanes){0};
        }
}

/* Call f(..., count) for all channels: with a constant while there are enough, which is compiled
   into whole vectors, and with what is left at the end. */
#define ALL_CHANNELS(channels, f, ...) \
    { \
        long c = 0; \
        for (; c + LANES <= channels; c += LANES) \
            f(__VA_ARGS__, LANES); \
        if (c < channels) \
            f(__VA_ARGS__, channels - c); \
    }
