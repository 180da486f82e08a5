#ifndef WINOGRAD_H
#define WINOGRAD_H

/* The interface of the library; `library.py` has the same signatures. */

#include "plan.h"

/* Columns by which filters are padded. */
extern const long panel;

/* Convolve images x into outputs y; with `argmax` max-pooled 2 x 2. Filters are (tile area, panels
   of outputs, inputs, panel), y and argmax (images, height, width, outputs), the two halved if
   pooled. Returns 0 for an m that there is not, else 1. */
int winograd_forward(
    const plan *p, const float *x, const float *filters, float *y, unsigned char *argmax,
    float *scratch);

/* From the gradient of y: add that of the filters to `filter_gradients`, (threads, tile area,
   inputs, outputs padded to whole panels), and write that of x to `x_gradient` unless it is null.
   Filters are (tile area, panels of inputs, outputs, panel). Returns as above. */
int winograd_backward(
    const plan *p, const float *x, const float *y_gradient, const unsigned char *argmax,
    const float *filters, float *x_gradient, float *filter_gradients, float *scratch);

#endif
