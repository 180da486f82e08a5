/* Convolutions 3x3 and their gradients by Winograd's minimal filtering. See ../README.md. */

#include "gemm.h"
#include "transforms.h"
#include "vectors.h"
#include "winograd.h"

const long panel = PANEL;

int omp_get_thread_num(void); /* of whichever OpenMP library is loaded already */

#define TILE (M + 2)
#define TILE_AREA (TILE * TILE)
#define F(f) JOINED(f, M)
#define JOINED(f, m) WITH_SIZE(f, m)
#define WITH_SIZE(f, m) f##_##m

#define M 2
#include "convolution.h"
#define M 3
#include "convolution.h"
#define M 4
#include "convolution.h"
#define M 5
#include "convolution.h"
#define M 6
#include "convolution.h"

#define EACH_SIZE(call) \
    switch (p->m) { \
    case 2: call(2); return 1; \
    case 3: call(3); return 1; \
    case 4: call(4); return 1; \
    case 5: call(5); return 1; \
    case 6: call(6); return 1; \
    default: return 0; \
    }

int winograd_forward(
    const plan *p, const float *x, const float *filters, float *y, unsigned char *argmax,
    float *scratch)
{
    #define CALL(m) forward_##m(p, x, filters, y, argmax, scratch)
    EACH_SIZE(CALL)
    #undef CALL
}

int winograd_backward(
    const plan *p, const float *x, const float *y_gradient, const unsigned char *argmax,
    const float *filters, float *x_gradient, float *filter_gradients, float *scratch)
{
    #define CALL(m) backward_##m(p, x, y_gradient, argmax, filters, x_gradient, filter_gradients, \
                                 scratch)
    EACH_SIZE(CALL)
    #undef CALL
}
