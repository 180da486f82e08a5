/* Runs one convolution and its gradients on memory of exactly the sizes that a plan says.

   Built under sanitizers by test_c.py. Arguments: whether to pool, floats that the scratch memory
   lacks, and the fields of the plan in order. */

#include <stdio.h>
#include <stdlib.h>

#include "winograd.h"

static float *floats(long count)
{
    float *numbers = malloc(sizeof(float) * count);
    for (long i = 0; i < count; i++)
        numbers[i] = (float)(i * 7919 % 997) / 997 - 0.5f;
    return numbers;
}

int main(int count, char **arguments)
{
    plan p;
    long *fields = (long *)&p;
    if (count != 3 + (int)(sizeof p / sizeof *fields))
        return 2;
    const long pool = atol(arguments[1]), missing = atol(arguments[2]);
    for (int i = 3; i < count; i++)
        fields[i - 3] = atol(arguments[i]);
    const long tile_area = (p.m + 2) * (p.m + 2);
    const long inputs = (p.inputs + panel - 1) / panel * panel;
    const long outputs = (p.outputs + panel - 1) / panel * panel;
    const long out_pixels = pool ? (p.height / 2) * (p.width / 2) : p.height * p.width;
    float *x = floats(p.images * p.height * p.width * p.inputs);
    float *x_gradient = floats(p.images * p.height * p.width * p.inputs);
    float *y = floats(p.images * out_pixels * p.outputs);
    unsigned char *argmax = pool ? malloc(p.images * out_pixels * p.outputs) : NULL;
    float *scratch = floats(p.threads * p.scratch - missing);
    float *filters = floats(tile_area * p.inputs * outputs);
    float *turned_filters = floats(tile_area * inputs * p.outputs);
    float *filter_gradients = floats(p.threads * tile_area * p.inputs * outputs);
    if (!winograd_forward(&p, x, filters, y, argmax, scratch))
        return 3;
    p.output_stride = outputs; /* the backward pass takes all at a time */
    p.scratch = tile_area * p.block_tiles * (p.input_stride + p.output_stride);
    free(scratch);
    scratch = floats(p.threads * p.scratch - missing);
    if (!winograd_backward(&p, x, y, argmax, turned_filters, x_gradient, filter_gradients, scratch))
        return 3;
    free(x), free(x_gradient), free(y), free(argmax), free(scratch), free(filters);
    free(turned_filters), free(filter_gradients);
    puts("done");
    return 0;
}
