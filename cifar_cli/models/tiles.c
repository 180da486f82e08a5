/* Winograd's tiles of one size, SIDE x SIDE outputs: moving them out of images and back.

   `c_source.py` puts in front of it: tiles.h, SIDE, SPREAD = SIDE + 2, NAME(f) to tell the sizes
   apart, and the transforms of a line of pixels, NAME(image) and the like. Images are (images,
   height, width, channels) without gaps, tiles (SPREAD * SPREAD, images * down * across, channels)
   with `step` and `row` from one of the first and second of these to the next, all float. A few
   channels are handled at a time, as lanes of a vector. */

/* Lines of `from` transformed, first along columns, then along rows. */
#define BOTH_WAYS(transform, in, out, from, to) \
    lanes between[out * in]; \
    for (int j = 0; j < in; j++) \
        NAME(transform)(from + j, in, between + j, in); \
    for (int i = 0; i < out; i++) \
        NAME(transform)(between + i * in, 1, to + i * out, 1)

#define EACH(count) \
    for (int i = 0; i < count; i++) \
        for (int j = 0; j < count; j++)

INLINE void NAME(load_tile)(const float *tile, lanes *into, long step, const long n)
{
    EACH (SPREAD)
        into[i * SPREAD + j] = load(tile + (i * SPREAD + j) * step, n);
}

INLINE void NAME(store_tile)(float *tile, const lanes *from, long step, const long n)
{
    EACH (SPREAD)
        store(tile + (i * SPREAD + j) * step, from[i * SPREAD + j], n);
}

INLINE void NAME(read_image)(
    const float *image, float *tile, const long *ys, const long *xs, long step, const long n)
{
    lanes pixels[SPREAD * SPREAD], out[SPREAD * SPREAD];
    load_window(image, ys, xs, SPREAD, pixels, n);
    BOTH_WAYS(image, SPREAD, SPREAD, pixels, out);
    NAME(store_tile)(tile, out, step, n);
}

/* Images to transformed tiles. */
static void NAME(read_images)(
    const sizes s, long images, const float *x, float *to, long row, long step)
{
    for (long t = 0; t < images * s.down * s.across; t++) {
        WINDOW(SPREAD, 1);
        const float *image = x + t / (s.down * s.across) * s.height * s.width * s.channels;
        ALL_CHANNELS(s.channels, NAME(read_image), image + c, to + t * row + c, ys, xs, step)
    }
}

INLINE void NAME(write_output)(
    const float *tile, float *image, const long *ys, const long *xs, long step, const long n)
{
    lanes sums[SPREAD * SPREAD], out[SIDE * SIDE];
    NAME(load_tile)(tile, sums, step, n);
    BOTH_WAYS(output, SPREAD, SIDE, sums, out);
    EACH (SIDE)
        if (ys[i] >= 0 && xs[j] >= 0)
            store(image + ys[i] + xs[j], out[i * SIDE + j], n);
}

/* Sums of products, of `count` of the channels, to outputs. */
static void NAME(write_outputs)(
    const sizes s, long images, const float *from, float *x, long row, long step, long count)
{
    for (long t = 0; t < images * s.down * s.across; t++) {
        WINDOW(SIDE, 0);
        float *image = x + t / (s.down * s.across) * s.height * s.width * s.channels;
        ALL_CHANNELS(count, NAME(write_output), from + t * row + c, image + c, ys, xs, step)
    }
}

INLINE void NAME(read_gradient)(
    const float *image, float *tile, const long *ys, const long *xs, long step, const long n)
{
    lanes pixels[SIDE * SIDE], out[SPREAD * SPREAD];
    load_window(image, ys, xs, SIDE, pixels, n);
    BOTH_WAYS(output_transposed, SIDE, SPREAD, pixels, out);
    NAME(store_tile)(tile, out, step, n);
}

/* The gradient of outputs to that of the sums. */
static void NAME(read_gradients)(
    const sizes s, long images, const float *x, float *to, long row, long step)
{
    for (long t = 0; t < images * s.down * s.across; t++) {
        WINDOW(SIDE, 0);
        const float *image = x + t / (s.down * s.across) * s.height * s.width * s.channels;
        ALL_CHANNELS(s.channels, NAME(read_gradient), image + c, to + t * row + c, ys, xs, step)
    }
}

INLINE void NAME(write_gradient)(
    const float *tile, float *image, const long *ys, const long *xs, long step, const long n)
{
    lanes sums[SPREAD * SPREAD], out[SPREAD * SPREAD];
    NAME(load_tile)(tile, sums, step, n);
    BOTH_WAYS(image_transposed, SPREAD, SPREAD, sums, out);
    EACH (SPREAD)
        if (ys[i] >= 0 && xs[j] >= 0) {
            float *at = image + ys[i] + xs[j];
            store(at, load(at, n) + out[i * SPREAD + j], n);
        }
}

/* The gradient of transformed tiles, which overlap, to that of the images. */
static void NAME(write_gradients)(
    const sizes s, long images, const float *from, float *x, long row, long step)
{
    memset(x, 0, sizeof(float) * images * s.height * s.width * s.channels);
    for (long t = 0; t < images * s.down * s.across; t++) {
        WINDOW(SPREAD, 1);
        float *image = x + t / (s.down * s.across) * s.height * s.width * s.channels;
        ALL_CHANNELS(s.channels, NAME(write_gradient), from + t * row + c, image + c, ys, xs, step)
    }
}

#if SIDE % 2 == 0

#define WINDOW_OF_POOLED \
    const long of_image = (s.height / 2) * (s.width / 2) * s.channels; \
    const long start = t / (s.down * s.across) * of_image; \
    long ys[SIDE / 2], xs[SIDE / 2]; \
    places(ys, SIDE / 2, t / s.across % s.down * (SIDE / 2), s.height / 2, 0, \
           s.width / 2 * s.channels); \
    places(xs, SIDE / 2, t % s.across * (SIDE / 2), s.width / 2, 0, s.channels)

INLINE void NAME(write_pooled_tile)(
    const float *tile, float *image, unsigned char *which, const long *ys, const long *xs,
    long step, const long n)
{
    lanes sums[SPREAD * SPREAD], out[SIDE * SIDE];
    NAME(load_tile)(tile, sums, step, n);
    BOTH_WAYS(output, SPREAD, SIDE, sums, out);
    EACH (SIDE / 2)
        if (ys[i] >= 0 && xs[j] >= 0) {
            lanes most = out[2 * i * SIDE + 2 * j];
            whole place = {0};
            for (int k = 1; k < 4; k++) {
                const lanes next = out[(2 * i + k / 2) * SIDE + 2 * j + k % 2];
                const whole larger = (next > most) | (next != next); /* NaN is handed on */
                most = chosen(larger, next, most);
                place = (place & ~larger) | (k & larger);
            }
            const bytes small = __builtin_convertvector(place, bytes);
            store(image + ys[i] + xs[j], most, n);
            memcpy(which + ys[i] + xs[j], &small, n);
        }
}

/* Sums of products to outputs that are max-pooled 2 x 2, and which of its four pixels each is. */
static void NAME(write_pooled)(
    const sizes s, long images, const float *from, float *x, unsigned char *which, long row,
    long step, long count)
{
    for (long t = 0; t < images * s.down * s.across; t++) {
        WINDOW_OF_POOLED;
        ALL_CHANNELS(count, NAME(write_pooled_tile), from + t * row + c, x + start + c,
                     which + start + c, ys, xs, step)
    }
}

INLINE void NAME(read_pooled_tile)(
    const float *image, const unsigned char *which, float *tile, const long *ys,
    const long *xs, long step, const long n)
{
    lanes pixels[SIDE * SIDE], out[SPREAD * SPREAD];
    EACH (SIDE / 2) {
        lanes gradient = {0};
        bytes small = {0};
        if (ys[i] >= 0 && xs[j] >= 0) {
            gradient = load(image + ys[i] + xs[j], n);
            memcpy(&small, which + ys[i] + xs[j], n);
        }
        const whole place = __builtin_convertvector(small, whole);
        for (int k = 0; k < 4; k++)
            pixels[(2 * i + k / 2) * SIDE + 2 * j + k % 2] = (lanes)((whole)gradient & (place == k));
    }
    BOTH_WAYS(output_transposed, SIDE, SPREAD, pixels, out);
    NAME(store_tile)(tile, out, step, n);
}

/* The gradient of pooled outputs to that of the sums. */
static void NAME(read_pooled)(
    const sizes s, long images, const float *x, const unsigned char *which, float *to, long row,
    long step)
{
    for (long t = 0; t < images * s.down * s.across; t++) {
        WINDOW_OF_POOLED;
        ALL_CHANNELS(s.channels, NAME(read_pooled_tile), x + start + c, which + start + c,
                     to + t * row + c, ys, xs, step)
    }
}

#undef WINDOW_OF_POOLED
#endif

#undef BOTH_WAYS
#undef EACH
