#ifndef WINOGRAD_H
#define WINOGRAD_H

/* The interface of the library; `library.py` has the same signatures. */

/* The sizes of a convolution, and how its work is divided among threads.

   `library.py` takes the names from here: one field a line. */
typedef struct {
    long m;             /* pixels along a side of an output tile */
    long images;        /* of the batch */
    long height;        /* of an image, in pixels */
    long width;
    long inputs;        /* channels */
    long outputs;
    long reflect;       /* whether the border of one pixel is reflected; else it is zero */
    long tiles_down;    /* of an image */
    long tiles_across;
    long threads;       /* that have scratch memory; no other one may get a block */
    long blocks;        /* of images; a thread handles one at a time */
    long input_stride;  /* floats from one tile to the next, of transformed inputs */
    long output_stride; /* and of outputs before their transform */
    long block_tiles;   /* for which a block has scratch memory */
    long scratch;       /* floats of scratch memory of a thread */
} plan;

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
