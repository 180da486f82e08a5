/* A convolution, and its gradients, by Winograd's tiles of one size; see tiles.c.

   A thread takes a block of images at a time, few enough for its caches unless the layer is wide,
   through one transform, the products, and the other transform. */

/* Images of block number `block`: the first one, and how many. */
#define IMAGES_OF_BLOCK \
    const long first = block * l->images / l->blocks; \
    const long images = (block + 1) * l->images / l->blocks - first; \
    const long tiles = images * l->down * l->across

/* Sizes of an image, and memory for the tiles of a block: inputs, and sums of products. */
#define PREPARE(pooled) \
    const sizes in = {l->height, l->width, l->inputs, l->down, l->across, l->reflect}; \
    const sizes out = {l->height, l->width, l->outputs, l->down, l->across, 0}; \
    const long of_in = l->height * l->width * l->inputs; \
    const long of_out = (pooled) ? (l->height / 2) * (l->width / 2) * l->outputs \
                                 : l->height * l->width * l->outputs; \
    const long input_step = l->rows * l->input_row, sum_step = l->rows * l->sum_row

/* Images x, filters in panels (SPREAD^2, panels of outputs, inputs, PANEL): outputs y; where there
   is `which`, pooled. */
void NAME(forward)(
    const layer *l, const float *x, const float *filters, float *y, unsigned char *which,
    float *scratch)
{
    PREPARE(which);
    const long of_filter = l->inputs * PADDED(l->outputs);
    #pragma omp parallel for schedule(static)
    for (long block = 0; block < l->blocks; block++) {
        IMAGES_OF_BLOCK;
        float *inputs = scratch + omp_get_thread_num() * l->room;
        float *sums = inputs + SPREAD * SPREAD * input_step;
        NAME(read_images)(in, images, x + first * of_in, inputs, l->input_row, input_step);
        for (long k = 0; k < l->outputs; k += l->sum_row) {
            const long count = l->outputs - k < l->sum_row ? l->outputs - k : l->sum_row;
            for (long n = 0; n < SPREAD * SPREAD; n++)
                product(inputs + n * input_step, l->input_row, 1,
                        filters + n * of_filter + k * l->inputs, PANEL, PANEL * l->inputs,
                        sums + n * sum_step, l->sum_row, tiles, PADDED(count), l->inputs, 0);
            const long at = first * of_out + k;
            #if SIDE % 2 == 0
            if (which) {
                NAME(write_pooled)(out, images, sums, y + at, which + at, l->sum_row, sum_step,
                                   count);
                continue;
            }
            #endif
            NAME(write_outputs)(out, images, sums, y + at, l->sum_row, sum_step, count);
        }
    }
}

/* The gradient of y: added to that of the filters, (threads, SPREAD^2, inputs, whole panels of
   outputs), and, where there is of_x, that of the images. `filters` are in panels of inputs. */
void NAME(backward)(
    const layer *l, const float *x, const float *of_y, const unsigned char *which,
    const float *filters, float *of_x, float *of_filters, float *scratch)
{
    PREPARE(which);
    const long columns = PADDED(l->outputs), of_filter = l->inputs * columns;
    #pragma omp parallel for schedule(static)
    for (long block = 0; block < l->blocks; block++) {
        IMAGES_OF_BLOCK;
        float *inputs = scratch + omp_get_thread_num() * l->room;
        float *sums = inputs + SPREAD * SPREAD * input_step;
        float *own = of_filters + omp_get_thread_num() * SPREAD * SPREAD * of_filter;
        const long at = first * of_out;
        NAME(read_images)(in, images, x + first * of_in, inputs, l->input_row, input_step);
        #if SIDE % 2 == 0
        if (which)
            NAME(read_pooled)(out, images, of_y + at, which + at, sums, l->sum_row, sum_step);
        else
        #endif
            NAME(read_gradients)(out, images, of_y + at, sums, l->sum_row, sum_step);
        for (long n = 0; n < SPREAD * SPREAD; n++) {
            float *input = inputs + n * input_step;
            const float *sum = sums + n * sum_step;
            product(input, 1, l->input_row, sum, l->sum_row, PANEL, own + n * of_filter, columns,
                    l->inputs, columns, tiles, 1);
            if (of_x) /* in the place of the input, which is not needed any more */
                product(sum, l->sum_row, 1, filters + n * l->outputs * PADDED(l->inputs), PANEL,
                        PANEL * l->outputs, input, l->input_row, tiles, PADDED(l->inputs),
                        l->outputs, 0);
        }
        if (of_x)
            NAME(write_gradients)(in, images, inputs, of_x + first * of_in, l->input_row,
                                  input_step);
    }
}

#undef IMAGES_OF_BLOCK
#undef PREPARE
