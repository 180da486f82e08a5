/* Tiles of one size: from images through a transform into matrices, and back.

   A template, which `winograd.c` includes for each M. An output tile has M x M pixels and an input
   tile TILE x TILE, TILE = M + 2; F(f) adds the size to the name of a function. Images are (images,
   height, width, channels) without gaps. Matrices of transformed tiles are (TILE_AREA, tiles of the
   images, channels); `row` is their stride from tile to tile, `step` that from matrix to matrix, in
   floats. A few channels are handled at a time, as lanes of a vector. */

#ifndef M
#error "tiles.h is a template, included by winograd.c"
#endif

#define EACH(count) \
    for (int i = 0; i < count; i++) \
        for (int j = 0; j < count; j++)

/* Apply a transform from `in` to `out` pixels along columns, then along rows. */
#define BOTH_AXES(transform, in, out, from, to) \
    lanes between[out * in]; \
    for (int j = 0; j < in; j++) \
        F(transform)(from + j, in, between + j, in); \
    for (int i = 0; i < out; i++) \
        F(transform)(between + i * in, 1, to + i * out, 1)

#define EACH_TILE for (long t = 0; t < images * s.tiles_down * s.tiles_across; t++)

/* Offsets of the image of tile t, and of lines: `count`, from `before` pixels before its own. */
#define TILE_LINES(count, before) \
    const long image = t / (s.tiles_down * s.tiles_across) * s.height * s.width * s.channels; \
    const long top = t / s.tiles_across % s.tiles_down * M, left = t % s.tiles_across * M; \
    long ys[count], xs[count]; \
    line_offsets(ys, count, top - before, s.height, s.reflect, s.width * s.channels); \
    line_offsets(xs, count, left - before, s.width, s.reflect, s.channels)

INLINE void F(load_tile)(const float *tile, lanes *to, long step, const long n)
{
    EACH (TILE)
        to[i * TILE + j] = load(tile + (i * TILE + j) * step, n);
}

INLINE void F(store_tile)(float *tile, const lanes *from, long step, const long n)
{
    EACH (TILE)
        store(tile + (i * TILE + j) * step, from[i * TILE + j], n);
}

INLINE void F(read_tile)(
    const float *image, float *tile, const long *ys, const long *xs, long step, const long n)
{
    lanes pixels[TILE_AREA], out[TILE_AREA];
    load_window(image, ys, xs, TILE, pixels, n);
    BOTH_AXES(image, TILE, TILE, pixels, out);
    F(store_tile)(tile, out, step, n);
}

/* Images to transformed input tiles. */
static void F(read_images)(
    const image_sizes s, long images, const float *x, float *to, long row, long step)
{
    EACH_TILE {
        TILE_LINES(TILE, 1);
        ALL_CHANNELS(s.channels, F(read_tile), x + image + c, to + t * row + c, ys, xs, step)
    }
}

INLINE void F(write_tile)(
    const float *tile, float *image, const long *ys, const long *xs, long step, const long n)
{
    lanes products[TILE_AREA], out[M * M];
    F(load_tile)(tile, products, step, n);
    BOTH_AXES(output, TILE, M, products, out);
    EACH (M)
        if (ys[i] >= 0 && xs[j] >= 0)
            store(image + ys[i] + xs[j], out[i * M + j], n);
}

/* Products, of `count` of the channels, to outputs. */
static void F(write_outputs)(
    const image_sizes s, long images, const float *from, float *y, long row, long step, long count)
{
    EACH_TILE {
        TILE_LINES(M, 0);
        ALL_CHANNELS(count, F(write_tile), from + t * row + c, y + image + c, ys, xs, step)
    }
}

INLINE void F(read_gradient_tile)(
    const float *image, float *tile, const long *ys, const long *xs, long step, const long n)
{
    lanes pixels[M * M], out[TILE_AREA];
    load_window(image, ys, xs, M, pixels, n);
    BOTH_AXES(output_transposed, M, TILE, pixels, out);
    F(store_tile)(tile, out, step, n);
}

/* The gradient of outputs to that of the products. */
static void F(read_gradients)(
    const image_sizes s, long images, const float *y, float *to, long row, long step)
{
    EACH_TILE {
        TILE_LINES(M, 0);
        ALL_CHANNELS(s.channels, F(read_gradient_tile), y + image + c, to + t * row + c, ys, xs,
                     step)
    }
}

INLINE void F(write_gradient_tile)(
    const float *tile, float *image, const long *ys, const long *xs, long step, const long n)
{
    lanes gradients[TILE_AREA], out[TILE_AREA];
    F(load_tile)(tile, gradients, step, n);
    BOTH_AXES(image_transposed, TILE, TILE, gradients, out);
    EACH (TILE)
        if (ys[i] >= 0 && xs[j] >= 0) {
            float *pixel = image + ys[i] + xs[j];
            store(pixel, load(pixel, n) + out[i * TILE + j], n);
        }
}

/* The gradient of transformed input tiles, which overlap, to that of the images. */
static void F(write_gradients)(
    const image_sizes s, long images, const float *from, float *x, long row, long step)
{
    memset(x, 0, sizeof(float) * images * s.height * s.width * s.channels);
    EACH_TILE {
        TILE_LINES(TILE, 1);
        ALL_CHANNELS(s.channels, F(write_gradient_tile), from + t * row + c, x + image + c, ys, xs,
                     step)
    }
}

#if M % 2 == 0

#define POOLED_LINES \
    const long image_floats = (s.height / 2) * (s.width / 2) * s.channels; \
    const long image = t / (s.tiles_down * s.tiles_across) * image_floats; \
    const long top = t / s.tiles_across % s.tiles_down * (M / 2); \
    const long left = t % s.tiles_across * (M / 2); \
    long ys[M / 2], xs[M / 2]; \
    line_offsets(ys, M / 2, top, s.height / 2, 0, s.width / 2 * s.channels); \
    line_offsets(xs, M / 2, left, s.width / 2, 0, s.channels)

INLINE void F(write_pooled_tile)(
    const float *tile, float *image, unsigned char *argmax, const long *ys, const long *xs,
    long step, const long n)
{
    lanes products[TILE_AREA], out[M * M];
    F(load_tile)(tile, products, step, n);
    BOTH_AXES(output, TILE, M, products, out);
    EACH (M / 2)
        if (ys[i] >= 0 && xs[j] >= 0) {
            lanes maximum = out[2 * i * M + 2 * j];
            int_lanes index = {0};
            for (int k = 1; k < 4; k++) {
                const lanes next = out[(2 * i + k / 2) * M + 2 * j + k % 2];
                const int_lanes is_larger = (next > maximum) | (next != next); /* NaN is kept */
                maximum = select_lanes(is_larger, next, maximum);
                index = (index & ~is_larger) | (k & is_larger);
            }
            const byte_lanes indices = __builtin_convertvector(index, byte_lanes);
            store(image + ys[i] + xs[j], maximum, n);
            memcpy(argmax + ys[i] + xs[j], &indices, n);
        }
}

/* Products to outputs that are max-pooled 2 x 2, and the argmax index, 0 to 3, of each. */
static void F(write_pooled)(
    const image_sizes s, long images, const float *from, float *y, unsigned char *argmax, long row,
    long step, long count)
{
    EACH_TILE {
        POOLED_LINES;
        ALL_CHANNELS(count, F(write_pooled_tile), from + t * row + c, y + image + c,
                     argmax + image + c, ys, xs, step)
    }
}

INLINE void F(read_pooled_tile)(
    const float *image, const unsigned char *argmax, float *tile, const long *ys,
    const long *xs, long step, const long n)
{
    lanes pixels[M * M], out[TILE_AREA];
    EACH (M / 2) {
        lanes gradient = {0};
        byte_lanes indices = {0};
        if (ys[i] >= 0 && xs[j] >= 0) {
            gradient = load(image + ys[i] + xs[j], n);
            memcpy(&indices, argmax + ys[i] + xs[j], n);
        }
        const int_lanes index = __builtin_convertvector(indices, int_lanes);
        for (int k = 0; k < 4; k++)
            pixels[(2 * i + k / 2) * M + 2 * j + k % 2] =
                (lanes)((int_lanes)gradient & (index == k));
    }
    BOTH_AXES(output_transposed, M, TILE, pixels, out);
    F(store_tile)(tile, out, step, n);
}

/* The gradient of pooled outputs to that of the products. */
static void F(read_pooled)(
    const image_sizes s, long images, const float *y, const unsigned char *argmax, float *to,
    long row, long step)
{
    EACH_TILE {
        POOLED_LINES;
        ALL_CHANNELS(s.channels, F(read_pooled_tile), y + image + c, argmax + image + c,
                     to + t * row + c, ys, xs, step)
    }
}

#undef POOLED_LINES
#endif

#undef TILE_LINES
#undef EACH_TILE
#undef BOTH_AXES
#undef EACH
