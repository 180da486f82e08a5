#ifndef PLAN_H
#define PLAN_H

/* The sizes of a convolution, and how its work is divided among threads.

   `compiled.py` takes the names from here: one field a line. */
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

#endif
