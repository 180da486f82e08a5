/* A convolution and its gradients by tiles of one size: a template, as tiles.h is.

   A thread takes a block of images at a time, few enough for its caches unless the layer is wide,
   through one transform, the GEMMs and the other transform. */

#ifndef M
#error "convolution.h is a template, included by winograd.c"
#endif

#include "tiles.h"

/* Images of block number `block`: the first one, and how many. */
#define IMAGES_OF_BLOCK \
    const long first = block * p->images / p->blocks; \
    const long images = (block + 1) * p->images / p->blocks - first; \
    const long tiles = images * p->tiles_down * p->tiles_across

/* Sizes of an image before and after, and strides from one matrix of tiles to the next. */
#define SIZES(pooled) \
    const image_sizes in = {p->height, p->width, p->inputs, p->tiles_down, p->tiles_across, \
                            p->reflect}; \
    const image_sizes out = {p->height, p->width, p->outputs, p->tiles_down, p->tiles_across, 0}; \
    const long in_floats = p->height * p->width * p->inputs; \
    const long out_floats = (pooled) ? (p->height / 2) * (p->width / 2) * p->outputs \
                                     : p->height * p->width * p->outputs; \
    const long input_step = p->block_tiles * p->input_stride; \
    const long output_step = p->block_tiles * p->output_stride

static void F(forward)(
    const plan *p, const float *x, const float *filters, float *y, unsigned char *argmax,
    float *scratch)
{
    SIZES(argmax);
    const long filter_step = p->inputs * PADDED(p->outputs);
    #pragma omp parallel for schedule(static)
    for (long block = 0; block < p->blocks; block++) {
        IMAGES_OF_BLOCK;
        float *inputs = scratch + omp_get_thread_num() * p->scratch;
        float *products = inputs + TILE_AREA * input_step;
        F(read_images)(in, images, x + first * in_floats, inputs, p->input_stride, input_step);
        for (long k = 0; k < p->outputs; k += p->output_stride) {
            const long left = p->outputs - k;
            const long count = left < p->output_stride ? left : p->output_stride;
            for (long n = 0; n < TILE_AREA; n++)
                gemm(inputs + n * input_step, p->input_stride, 1,
                     filters + n * filter_step + k * p->inputs, PANEL, PANEL * p->inputs,
                     products + n * output_step, p->output_stride, tiles, PADDED(count),
                     p->inputs, 0);
            const long start = first * out_floats + k;
            #if M % 2 == 0
            if (argmax) {
                F(write_pooled)(out, images, products, y + start, argmax + start,
                                p->output_stride, output_step, count);
                continue;
            }
            #endif
            F(write_outputs)(out, images, products, y + start, p->output_stride, output_step,
                             count);
        }
    }
}

static void F(backward)(
    const plan *p, const float *x, const float *y_gradient, const unsigned char *argmax,
    const float *filters, float *x_gradient, float *filter_gradients, float *scratch)
{
    SIZES(argmax);
    const long columns = PADDED(p->outputs), filter_step = p->inputs * columns;
    #pragma omp parallel for schedule(static)
    for (long block = 0; block < p->blocks; block++) {
        IMAGES_OF_BLOCK;
        float *inputs = scratch + omp_get_thread_num() * p->scratch;
        float *products = inputs + TILE_AREA * input_step;
        float *own_gradients = filter_gradients + omp_get_thread_num() * TILE_AREA * filter_step;
        const long start = first * out_floats;
        F(read_images)(in, images, x + first * in_floats, inputs, p->input_stride, input_step);
        #if M % 2 == 0
        if (argmax)
            F(read_pooled)(out, images, y_gradient + start, argmax + start, products,
                           p->output_stride, output_step);
        else
        #endif
            F(read_gradients)(out, images, y_gradient + start, products, p->output_stride,
                              output_step);
        for (long n = 0; n < TILE_AREA; n++) {
            float *input = inputs + n * input_step;
            const float *product = products + n * output_step;
            gemm(input, 1, p->input_stride, product, p->output_stride, PANEL,
                 own_gradients + n * filter_step, columns, p->inputs, columns, tiles, 1);
            if (x_gradient) /* over the input, which is not needed any more */
                gemm(product, p->output_stride, 1,
                     filters + n * p->outputs * PADDED(p->inputs), PANEL, PANEL * p->outputs,
                     input, p->input_stride, tiles, PADDED(p->inputs), p->outputs, 0);
        }
        if (x_gradient)
            F(write_gradients)(in, images, inputs, x_gradient + first * in_floats,
                               p->input_stride, input_step);
    }
}

#undef IMAGES_OF_BLOCK
#undef SIZES
#undef M
