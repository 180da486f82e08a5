#ifndef TRANSFORMS_H
#define TRANSFORMS_H

/* Written by tests/kernels/write_transforms.py. The transforms of a line of pixels for output tiles
   of 2 to 6 pixels a side: from vectors X, `from` apart, to vectors Y, `to` apart. */

#include "vectors.h"

#define TRANSFORM(name) \
    INLINE void name(const lanes *in, const long from, lanes *out, const long to)
#define X(i) in[i * from]
#define Y(i) out[i * to]
#define SUM_AND_DIFFERENCE(a, b, x, y) \
    { const lanes s = x, d = y; Y(a) = s + d; Y(b) = s - d; }

TRANSFORM(image_2) {
    Y(0) = X(0) - X(2);
    Y(1) = X(1) + X(2);
    Y(2) = - X(1) + X(2);
    Y(3) = - X(1) + X(3);
}

TRANSFORM(image_transposed_2) {
    Y(0) = X(0);
    Y(1) = X(1) - X(2) - X(3);
    Y(2) = - X(0) + X(1) + X(2);
    Y(3) = X(3);
}

TRANSFORM(output_2) {
    Y(0) = X(0) + X(1) + X(2);
    Y(1) = X(1) - X(2) + X(3);
}

TRANSFORM(output_transposed_2) {
    Y(0) = X(0);
    Y(1) = X(0) + X(1);
    Y(2) = X(0) - X(1);
    Y(3) = X(1);
}

TRANSFORM(image_3) {
    Y(0) = 2.0f * X(0) - X(1) - 2.0f * X(2) + X(3);
    Y(1) = 2.0f * X(1) + X(2) - X(3);
    Y(2) = - 2.0f * X(1) + 3.0f * X(2) - X(3);
    Y(3) = - X(1) + X(3);
    Y(4) = 2.0f * X(1) - X(2) - 2.0f * X(3) + X(4);
}

TRANSFORM(image_transposed_3) {
    Y(0) = 2.0f * X(0);
    SUM_AND_DIFFERENCE(1, 3, 0.5f * X(1) - 1.5f * X(2), - X(0) + 1.5f * X(1) - 0.5f * X(2) - X(3) + 2.0f * X(4))
    Y(2) = - 2.0f * X(0) + X(1) + 3.0f * X(2) - X(4);
    Y(4) = X(4);
}

TRANSFORM(output_3) {
    Y(0) = X(0) + X(1) + X(2) + X(3);
    Y(1) = X(1) - X(2) + 2.0f * X(3);
    Y(2) = X(1) + X(2) + 4.0f * X(3) + X(4);
}

TRANSFORM(output_transposed_3) {
    Y(0) = X(0);
    SUM_AND_DIFFERENCE(1, 2, X(0) + X(2), X(1))
    Y(3) = X(0) + 2.0f * X(1) + 4.0f * X(2);
    Y(4) = X(2);
}

TRANSFORM(image_4) {
    Y(0) = 4.0f * X(0) - 5.0f * X(2) + X(4);
    SUM_AND_DIFFERENCE(1, 2, 4.0f * X(2) - X(4), 4.0f * X(1) - X(3))
    SUM_AND_DIFFERENCE(3, 4, - X(2) + X(4), - 2.0f * X(1) + 2.0f * X(3))
    Y(5) = 4.0f * X(1) - 5.0f * X(3) + X(5);
}

TRANSFORM(image_transposed_4) {
    Y(0) = 4.0f * X(0);
    Y(1) = 4.0f * X(1) - 4.0f * X(2) - 2.0f * X(3) + 2.0f * X(4) + 4.0f * X(5);
    Y(2) = - 5.0f * X(0) + 4.0f * X(1) + 4.0f * X(2) - X(3) - X(4);
    Y(3) = - X(1) + X(2) + 2.0f * X(3) - 2.0f * X(4) - 5.0f * X(5);
    Y(4) = X(0) - X(1) - X(2) + X(3) + X(4);
    Y(5) = X(5);
}

TRANSFORM(output_4) {
    Y(0) = X(0) + X(1) + X(2) + X(3) + X(4);
    Y(1) = X(1) - X(2) + 2.0f * X(3) - 2.0f * X(4);
    Y(2) = X(1) + X(2) + 4.0f * X(3) + 4.0f * X(4);
    Y(3) = X(1) - X(2) + 8.0f * X(3) - 8.0f * X(4) + X(5);
}

TRANSFORM(output_transposed_4) {
    Y(0) = X(0);
    SUM_AND_DIFFERENCE(1, 2, X(0) + X(2), X(1) + X(3))
    SUM_AND_DIFFERENCE(3, 4, X(0) + 4.0f * X(2), 2.0f * X(1) + 8.0f * X(3))
    Y(5) = X(3);
}

TRANSFORM(image_5) {
    Y(0) = 4.0f * X(0) - 8.0f * X(1) - 5.0f * X(2) + 10.0f * X(3) + X(4) - 2.0f * X(5);
    Y(1) = - 4.0f * X(1) + 4.0f * X(2) + 9.0f * X(3) - X(4) - 2.0f * X(5);
    Y(2) = - 4.0f * X(1) + 12.0f * X(2) - 7.0f * X(3) - 3.0f * X(4) + 2.0f * X(5);
    Y(3) = X(1) - 1.5f * X(2) - 2.0f * X(3) + 1.5f * X(4) + X(5);
    Y(4) = X(1) - 2.5f * X(2) + 2.5f * X(4) - X(5);
    Y(5) = 128.0f * X(1) - 160.0f * X(3) + 32.0f * X(5);
    Y(6) = - 4.0f * X(1) + 8.0f * X(2) + 5.0f * X(3) - 10.0f * X(4) - X(5) + 2.0f * X(6);
}

TRANSFORM(image_transposed_5) {
    Y(0) = 4.0f * X(0);
    Y(1) = - 8.0f * X(0) - 4.0f * X(1) - 4.0f * X(2) + X(3) + X(4) + 128.0f * X(5) - 4.0f * X(6);
    Y(2) = - 5.0f * X(0) + 4.0f * X(1) + 12.0f * X(2) - 1.5f * X(3) - 2.5f * X(4) + 8.0f * X(6);
    Y(3) = 10.0f * X(0) + 9.0f * X(1) - 7.0f * X(2) - 2.0f * X(3) - 160.0f * X(5) + 5.0f * X(6);
    Y(4) = X(0) - X(1) - 3.0f * X(2) + 1.5f * X(3) + 2.5f * X(4) - 10.0f * X(6);
    Y(5) = - 2.0f * X(0) - 2.0f * X(1) + 2.0f * X(2) + X(3) - X(4) + 32.0f * X(5) - X(6);
    Y(6) = 2.0f * X(6);
}

TRANSFORM(output_5) {
    Y(0) = X(0) + X(1) + X(2) + X(3) + X(4) + X(5);
    Y(1) = X(1) - X(2) + 2.0f * X(3) - 2.0f * X(4) + 0.5f * X(5);
    Y(2) = X(1) + X(2) + 4.0f * X(3) + 4.0f * X(4) + 0.25f * X(5);
    Y(3) = X(1) - X(2) + 8.0f * X(3) - 8.0f * X(4) + 0.125f * X(5);
    Y(4) = X(1) + X(2) + 16.0f * X(3) + 16.0f * X(4) + 0.0625f * X(5) + X(6);
}

TRANSFORM(output_transposed_5) {
    Y(0) = X(0);
    SUM_AND_DIFFERENCE(1, 2, X(0) + X(2) + X(4), X(1) + X(3))
    SUM_AND_DIFFERENCE(3, 4, X(0) + 4.0f * X(2) + 16.0f * X(4), 2.0f * X(1) + 8.0f * X(3))
    Y(5) = X(0) + 0.5f * X(1) + 0.25f * X(2) + 0.125f * X(3) + 0.0625f * X(4);
    Y(6) = X(4);
}

TRANSFORM(image_6) {
    Y(0) = 4.0f * X(0) - 21.0f * X(2) + 21.0f * X(4) - 4.0f * X(6);
    SUM_AND_DIFFERENCE(1, 2, - 4.0f * X(2) + 17.0f * X(4) - 4.0f * X(6), - 4.0f * X(1) + 17.0f * X(3) - 4.0f * X(5))
    SUM_AND_DIFFERENCE(3, 4, X(2) - 5.0f * X(4) + 4.0f * X(6), 2.0f * X(1) - 10.0f * X(3) + 8.0f * X(5))
    SUM_AND_DIFFERENCE(5, 6, 128.0f * X(2) - 160.0f * X(4) + 32.0f * X(6), 64.0f * X(1) - 80.0f * X(3) + 16.0f * X(5))
    Y(7) = - 4.0f * X(1) + 21.0f * X(3) - 21.0f * X(5) + 4.0f * X(7);
}

TRANSFORM(image_transposed_6) {
    Y(0) = 4.0f * X(0);
    Y(1) = - 4.0f * X(1) + 4.0f * X(2) + 2.0f * X(3) - 2.0f * X(4) + 64.0f * X(5) - 64.0f * X(6) - 4.0f * X(7);
    Y(2) = - 21.0f * X(0) - 4.0f * X(1) - 4.0f * X(2) + X(3) + X(4) + 128.0f * X(5) + 128.0f * X(6);
    Y(3) = 17.0f * X(1) - 17.0f * X(2) - 10.0f * X(3) + 10.0f * X(4) - 80.0f * X(5) + 80.0f * X(6) + 21.0f * X(7);
    Y(4) = 21.0f * X(0) + 17.0f * X(1) + 17.0f * X(2) - 5.0f * X(3) - 5.0f * X(4) - 160.0f * X(5) - 160.0f * X(6);
    Y(5) = - 4.0f * X(1) + 4.0f * X(2) + 8.0f * X(3) - 8.0f * X(4) + 16.0f * X(5) - 16.0f * X(6) - 21.0f * X(7);
    Y(6) = - 4.0f * X(0) - 4.0f * X(1) - 4.0f * X(2) + 4.0f * X(3) + 4.0f * X(4) + 32.0f * X(5) + 32.0f * X(6);
    Y(7) = 4.0f * X(7);
}

TRANSFORM(output_6) {
    Y(0) = X(0) + X(1) + X(2) + X(3) + X(4) + X(5) + X(6);
    Y(1) = X(1) - X(2) + 2.0f * X(3) - 2.0f * X(4) + 0.5f * X(5) - 0.5f * X(6);
    Y(2) = X(1) + X(2) + 4.0f * X(3) + 4.0f * X(4) + 0.25f * X(5) + 0.25f * X(6);
    Y(3) = X(1) - X(2) + 8.0f * X(3) - 8.0f * X(4) + 0.125f * X(5) - 0.125f * X(6);
    Y(4) = X(1) + X(2) + 16.0f * X(3) + 16.0f * X(4) + 0.0625f * X(5) + 0.0625f * X(6);
    Y(5) = X(1) - X(2) + 32.0f * X(3) - 32.0f * X(4) + 0.03125f * X(5) - 0.03125f * X(6) + X(7);
}

TRANSFORM(output_transposed_6) {
    Y(0) = X(0);
    SUM_AND_DIFFERENCE(1, 2, X(0) + X(2) + X(4), X(1) + X(3) + X(5))
    SUM_AND_DIFFERENCE(3, 4, X(0) + 4.0f * X(2) + 16.0f * X(4), 2.0f * X(1) + 8.0f * X(3) + 32.0f * X(5))
    SUM_AND_DIFFERENCE(5, 6, X(0) + 0.25f * X(2) + 0.0625f * X(4), 0.5f * X(1) + 0.125f * X(3) + 0.03125f * X(5))
    Y(7) = X(5);
}

#undef TRANSFORM
#undef X
#undef Y
#undef SUM_AND_DIFFERENCE

#endif
