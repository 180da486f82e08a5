/* Winograd's tiles of one size, SIDE x SIDE outputs: moving them out of images and back.

   `native.py` puts in front of it: tiles.h, SIDE, SPREAD = SIDE + 2, NAME(f) to tell the sizes
   apart, and the transforms of a line of pixels, NAME(image) and the like. Images are (images,
   height, width, channels) without gaps, tiles (SPREAD * SPREAD, images * down * across, channels)
   with `step` from one of the first of these to the next, all float. A few channels are handled at
   a time, as lanes of a vector. */

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
    const float *image, float *tile, const long *row, const long *column, long step, const long n)
{
    lanes pixels[SPREAD * SPREAD], out[SPREAD * SPREAD];
    load_window(image, row, column, SPREAD, pixels, n);
    BOTH_WAYS(image, SPREAD, SPREAD, pixels, out);
    NAME(store_tile)(tile, out, step, n);
}

/* Images to transformed tiles. */
void NAME(read_images)(
    const float *x, float *to, long images, long height, long width, long down,
    long across, long step, long channels, long reflect)
{
    const sizes s = {height, width, channels, down, across, reflect};
    #pragma omp parallel for schedule(static)
    for (long t = 0; t < images * down * across; t++) {
        WINDOW(SPREAD, 1);
        const float *image = x + t / (down * across) * height * width * channels;
        float *tile = to + t * channels;
        ALL_CHANNELS(channels, NAME(read_image), image + c, tile + c, row, column, step)
    }
}

INLINE void NAME(write_output)(
    const float *tile, float *image, const long *row, const long *column, long step, const long n)
{
    lanes sums[SPREAD * SPREAD], out[SIDE * SIDE];
    NAME(load_tile)(tile, sums, step, n);
    BOTH_WAYS(output, SPREAD, SIDE, sums, out);
    EACH (SIDE)
        if (row[i] >= 0 && column[j] >= 0)
            store(image + row[i] + column[j], out[i * SIDE + j], n);
}

/* Sums of products to outputs. */
void NAME(write_outputs)(
    const float *from, float *x, long images, long height, long width, long down,
    long across, long step, long channels)
{
    const sizes s = {height, width, channels, down, across, 0};
    #pragma omp parallel for schedule(static)
    for (long t = 0; t < images * down * across; t++) {
        WINDOW(SIDE, 0);
        float *image = x + t / (down * across) * height * width * channels;
        const float *tile = from + t * channels;
        ALL_CHANNELS(channels, NAME(write_output), tile + c, image + c, row, column, step)
    }
}

INLINE void NAME(read_gradient)(
    const float *image, float *tile, const long *row, const long *column, long step, const long n)
{
    lanes pixels[SIDE * SIDE], out[SPREAD * SPREAD];
    load_window(image, row, column, SIDE, pixels, n);
    BOTH_WAYS(output_transposed, SIDE, SPREAD, pixels, out);
    NAME(store_tile)(tile, out, step, n);
}

/* The gradient of outputs to that of the sums. */
void NAME(read_gradients)(
    const float *x, float *to, long images, long height, long width, long down,
    long across, long step, long channels)
{
    const sizes s = {height, width, channels, down, across, 0};
    #pragma omp parallel for schedule(static)
    for (long t = 0; t < images * down * across; t++) {
        WINDOW(SIDE, 0);
        const float *image = x + t / (down * across) * height * width * channels;
        float *tile = to + t * channels;
        ALL_CHANNELS(channels, NAME(read_gradient), image + c, tile + c, row, column, step)
    }
}

INLINE void NAME(write_gradient)(
    const float *tile, float *image, const long *row, const long *column, long step, const long n)
{
    lanes sums[SPREAD * SPREAD], out[SPREAD * SPREAD];
    NAME(load_tile)(tile, sums, step, n);
    BOTH_WAYS(image_transposed, SPREAD, SPREAD, sums, out);
    EACH (SPREAD)
        if (row[i] >= 0 && column[j] >= 0) {
            float *at = image + row[i] + column[j];
            store(at, load(at, n) + out[i * SPREAD + j], n);
        }
}

/* The gradient of transformed tiles to that of the images. Tiles overlap, so a thread takes some
   channels of an image as a whole. */
void NAME(write_gradients)(
    const float *from, float *x, long images, long height, long width, long down,
    long across, long step, long channels, long reflect)
{
    const sizes s = {height, width, channels, down, across, reflect};
    const long blocks = (channels + BLOCK - 1) / BLOCK, of_image = down * across;
    #pragma omp parallel for schedule(static)
    for (long task = 0; task < images * blocks; task++) {
        const long first = task % blocks * BLOCK, number = task / blocks;
        const long count = channels - first < BLOCK ? channels - first : BLOCK;
        float *image = x + number * height * width * channels + first;
        for (long pixel = 0; pixel < height * width; pixel++)
            memset(image + pixel * channels, 0, sizeof(float) * count);
        for (long t = number * of_image; t < (number + 1) * of_image; t++) {
            WINDOW(SPREAD, 1);
            const float *tile = from + t * channels + first;
            ALL_CHANNELS(count, NAME(write_gradient), tile + c, image + c, row, column, step)
        }
    }
}

#if SIDE % 2 == 0

#define WINDOW_OF_POOLED \
    long row[SIDE / 2], column[SIDE / 2]; \
    places(row, SIDE / 2, t / s.across % s.down * (SIDE / 2), s.height / 2, 0, s.width / 2 * s.channels); \
    places(column, SIDE / 2, t % s.across * (SIDE / 2), s.width / 2, 0, s.channels)

INLINE void NAME(write_pooled)(
    const float *tile, float *image, unsigned char *which, const long *row, const long *column,
    long step, const long n)
{
    lanes sums[SPREAD * SPREAD], out[SIDE * SIDE];
    NAME(load_tile)(tile, sums, step, n);
    BOTH_WAYS(output, SPREAD, SIDE, sums, out);
    EACH (SIDE / 2)
        if (row[i] >= 0 && column[j] >= 0) {
            lanes most = out[2 * i * SIDE + 2 * j];
            whole place = {0};
            for (int k = 1; k < 4; k++) {
                const lanes next = out[(2 * i + k / 2) * SIDE + 2 * j + k % 2];
                const whole larger = (next > most) | (next != next); /* NaN is handed on */
                most = chosen(larger, next, most);
                place = (place & ~larger) | (k & larger);
            }
            const bytes small = __builtin_convertvector(place, bytes);
            store(image + row[i] + column[j], most, n);
            memcpy(which + row[i] + column[j], &small, n);
        }
}

/* Sums of products to outputs that are max-pooled 2 x 2, and which of its four pixels each is. */
void NAME(write_outputs_pooled)(
    const float *from, float *x, unsigned char *which, long images, long height, long width,
    long down, long across, long step, long channels)
{
    const sizes s = {height, width, channels, down, across, 0};
    #pragma omp parallel for schedule(static)
    for (long t = 0; t < images * down * across; t++) {
        WINDOW_OF_POOLED;
        const long start = t / (down * across) * (height / 2) * (width / 2) * channels;
        const float *tile = from + t * channels;
        ALL_CHANNELS(channels, NAME(write_pooled), tile + c, x + start + c, which + start + c, row,
                     column, step)
    }
}

INLINE void NAME(read_pooled)(
    const float *image, const unsigned char *which, float *tile, const long *row,
    const long *column, long step, const long n)
{
    lanes pixels[SIDE * SIDE], out[SPREAD * SPREAD];
    EACH (SIDE / 2) {
        lanes gradient = {0};
        bytes small = {0};
        if (row[i] >= 0 && column[j] >= 0) {
            gradient = load(image + row[i] + column[j], n);
            memcpy(&small, which + row[i] + column[j], n);
        }
        const whole place = __builtin_convertvector(small, whole);
        for (int k = 0; k < 4; k++)
            pixels[(2 * i + k / 2) * SIDE + 2 * j + k % 2] = (lanes)((whole)gradient & (place == k));
    }
    BOTH_WAYS(output_transposed, SIDE, SPREAD, pixels, out);
    NAME(store_tile)(tile, out, step, n);
}

/* The gradient of pooled outputs to that of the sums. */
void NAME(read_gradients_pooled)(
    const float *x, const unsigned char *which, float *to, long images, long height, long width,
    long down, long across, long step, long channels)
{
    const sizes s = {height, width, channels, down, across, 0};
    #pragma omp parallel for schedule(static)
    for (long t = 0; t < images * down * across; t++) {
        WINDOW_OF_POOLED;
        const long start = t / (down * across) * (height / 2) * (width / 2) * channels;
        float *tile = to + t * channels;
        ALL_CHANNELS(channels, NAME(read_pooled), x + start + c, which + start + c, tile + c, row,
                     column, step)
    }
}

#undef WINDOW_OF_POOLED
#endif

#undef BOTH_WAYS
#undef EACH
#undef SIDE
#undef SPREAD
#undef NAME
