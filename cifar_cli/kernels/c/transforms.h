#ifndef TRANSFORMS_H
#define TRANSFORMS_H

/* Written by tests/kernels/write_transforms.py. The transforms of a line of pixels for output tiles
   of 2 to 6 pixels a side, from and to every so many vectors. */

#include "vectors.h"

INLINE void image_2(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = in[0 * from] - in[2 * from];
    out[1 * to] = in[1 * from] + in[2 * from];
    out[2 * to] = - in[1 * from] + in[2 * from];
    out[3 * to] = - in[1 * from] + in[3 * from];
}

INLINE void image_transposed_2(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = in[0 * from];
    out[1 * to] = in[1 * from] - in[2 * from] - in[3 * from];
    out[2 * to] = - in[0 * from] + in[1 * from] + in[2 * from];
    out[3 * to] = in[3 * from];
}

INLINE void output_2(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = in[0 * from] + in[1 * from] + in[2 * from];
    out[1 * to] = in[1 * from] - in[2 * from] + in[3 * from];
}

INLINE void output_transposed_2(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = in[0 * from];
    out[1 * to] = in[0 * from] + in[1 * from];
    out[2 * to] = in[0 * from] - in[1 * from];
    out[3 * to] = in[1 * from];
}

INLINE void image_3(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = 2.0f * in[0 * from] - in[1 * from] - 2.0f * in[2 * from] + in[3 * from];
    out[1 * to] = 2.0f * in[1 * from] + in[2 * from] - in[3 * from];
    out[2 * to] = - 2.0f * in[1 * from] + 3.0f * in[2 * from] - in[3 * from];
    out[3 * to] = - in[1 * from] + in[3 * from];
    out[4 * to] = 2.0f * in[1 * from] - in[2 * from] - 2.0f * in[3 * from] + in[4 * from];
}

INLINE void image_transposed_3(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = 2.0f * in[0 * from];
    const lanes s1 = 0.5f * in[1 * from] - 1.5f * in[2 * from];
    const lanes d1 = - in[0 * from] + 1.5f * in[1 * from] - 0.5f * in[2 * from] - in[3 * from] + 2.0f * in[4 * from];
    out[1 * to] = s1 + d1;
    out[3 * to] = s1 - d1;
    out[2 * to] = - 2.0f * in[0 * from] + in[1 * from] + 3.0f * in[2 * from] - in[4 * from];
    out[4 * to] = in[4 * from];
}

INLINE void output_3(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = in[0 * from] + in[1 * from] + in[2 * from] + in[3 * from];
    out[1 * to] = in[1 * from] - in[2 * from] + 2.0f * in[3 * from];
    out[2 * to] = in[1 * from] + in[2 * from] + 4.0f * in[3 * from] + in[4 * from];
}

INLINE void output_transposed_3(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = in[0 * from];
    const lanes s1 = in[0 * from] + in[2 * from];
    const lanes d1 = in[1 * from];
    out[1 * to] = s1 + d1;
    out[2 * to] = s1 - d1;
    out[3 * to] = in[0 * from] + 2.0f * in[1 * from] + 4.0f * in[2 * from];
    out[4 * to] = in[2 * from];
}

INLINE void image_4(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = 4.0f * in[0 * from] - 5.0f * in[2 * from] + in[4 * from];
    const lanes s1 = 4.0f * in[2 * from] - in[4 * from];
    const lanes d1 = 4.0f * in[1 * from] - in[3 * from];
    out[1 * to] = s1 + d1;
    out[2 * to] = s1 - d1;
    const lanes s3 = - in[2 * from] + in[4 * from];
    const lanes d3 = - 2.0f * in[1 * from] + 2.0f * in[3 * from];
    out[3 * to] = s3 + d3;
    out[4 * to] = s3 - d3;
    out[5 * to] = 4.0f * in[1 * from] - 5.0f * in[3 * from] + in[5 * from];
}

INLINE void image_transposed_4(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = 4.0f * in[0 * from];
    out[1 * to] = 4.0f * in[1 * from] - 4.0f * in[2 * from] - 2.0f * in[3 * from] + 2.0f * in[4 * from] + 4.0f * in[5 * from];
    out[2 * to] = - 5.0f * in[0 * from] + 4.0f * in[1 * from] + 4.0f * in[2 * from] - in[3 * from] - in[4 * from];
    out[3 * to] = - in[1 * from] + in[2 * from] + 2.0f * in[3 * from] - 2.0f * in[4 * from] - 5.0f * in[5 * from];
    out[4 * to] = in[0 * from] - in[1 * from] - in[2 * from] + in[3 * from] + in[4 * from];
    out[5 * to] = in[5 * from];
}

INLINE void output_4(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = in[0 * from] + in[1 * from] + in[2 * from] + in[3 * from] + in[4 * from];
    out[1 * to] = in[1 * from] - in[2 * from] + 2.0f * in[3 * from] - 2.0f * in[4 * from];
    out[2 * to] = in[1 * from] + in[2 * from] + 4.0f * in[3 * from] + 4.0f * in[4 * from];
    out[3 * to] = in[1 * from] - in[2 * from] + 8.0f * in[3 * from] - 8.0f * in[4 * from] + in[5 * from];
}

INLINE void output_transposed_4(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = in[0 * from];
    const lanes s1 = in[0 * from] + in[2 * from];
    const lanes d1 = in[1 * from] + in[3 * from];
    out[1 * to] = s1 + d1;
    out[2 * to] = s1 - d1;
    const lanes s3 = in[0 * from] + 4.0f * in[2 * from];
    const lanes d3 = 2.0f * in[1 * from] + 8.0f * in[3 * from];
    out[3 * to] = s3 + d3;
    out[4 * to] = s3 - d3;
    out[5 * to] = in[3 * from];
}

INLINE void image_5(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = 4.0f * in[0 * from] - 8.0f * in[1 * from] - 5.0f * in[2 * from] + 10.0f * in[3 * from] + in[4 * from] - 2.0f * in[5 * from];
    out[1 * to] = - 4.0f * in[1 * from] + 4.0f * in[2 * from] + 9.0f * in[3 * from] - in[4 * from] - 2.0f * in[5 * from];
    out[2 * to] = - 4.0f * in[1 * from] + 12.0f * in[2 * from] - 7.0f * in[3 * from] - 3.0f * in[4 * from] + 2.0f * in[5 * from];
    out[3 * to] = in[1 * from] - 1.5f * in[2 * from] - 2.0f * in[3 * from] + 1.5f * in[4 * from] + in[5 * from];
    out[4 * to] = in[1 * from] - 2.5f * in[2 * from] + 2.5f * in[4 * from] - in[5 * from];
    out[5 * to] = 128.0f * in[1 * from] - 160.0f * in[3 * from] + 32.0f * in[5 * from];
    out[6 * to] = - 4.0f * in[1 * from] + 8.0f * in[2 * from] + 5.0f * in[3 * from] - 10.0f * in[4 * from] - in[5 * from] + 2.0f * in[6 * from];
}

INLINE void image_transposed_5(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = 4.0f * in[0 * from];
    out[1 * to] = - 8.0f * in[0 * from] - 4.0f * in[1 * from] - 4.0f * in[2 * from] + in[3 * from] + in[4 * from] + 128.0f * in[5 * from] - 4.0f * in[6 * from];
    out[2 * to] = - 5.0f * in[0 * from] + 4.0f * in[1 * from] + 12.0f * in[2 * from] - 1.5f * in[3 * from] - 2.5f * in[4 * from] + 8.0f * in[6 * from];
    out[3 * to] = 10.0f * in[0 * from] + 9.0f * in[1 * from] - 7.0f * in[2 * from] - 2.0f * in[3 * from] - 160.0f * in[5 * from] + 5.0f * in[6 * from];
    out[4 * to] = in[0 * from] - in[1 * from] - 3.0f * in[2 * from] + 1.5f * in[3 * from] + 2.5f * in[4 * from] - 10.0f * in[6 * from];
    out[5 * to] = - 2.0f * in[0 * from] - 2.0f * in[1 * from] + 2.0f * in[2 * from] + in[3 * from] - in[4 * from] + 32.0f * in[5 * from] - in[6 * from];
    out[6 * to] = 2.0f * in[6 * from];
}

INLINE void output_5(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = in[0 * from] + in[1 * from] + in[2 * from] + in[3 * from] + in[4 * from] + in[5 * from];
    out[1 * to] = in[1 * from] - in[2 * from] + 2.0f * in[3 * from] - 2.0f * in[4 * from] + 0.5f * in[5 * from];
    out[2 * to] = in[1 * from] + in[2 * from] + 4.0f * in[3 * from] + 4.0f * in[4 * from] + 0.25f * in[5 * from];
    out[3 * to] = in[1 * from] - in[2 * from] + 8.0f * in[3 * from] - 8.0f * in[4 * from] + 0.125f * in[5 * from];
    out[4 * to] = in[1 * from] + in[2 * from] + 16.0f * in[3 * from] + 16.0f * in[4 * from] + 0.0625f * in[5 * from] + in[6 * from];
}

INLINE void output_transposed_5(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = in[0 * from];
    const lanes s1 = in[0 * from] + in[2 * from] + in[4 * from];
    const lanes d1 = in[1 * from] + in[3 * from];
    out[1 * to] = s1 + d1;
    out[2 * to] = s1 - d1;
    const lanes s3 = in[0 * from] + 4.0f * in[2 * from] + 16.0f * in[4 * from];
    const lanes d3 = 2.0f * in[1 * from] + 8.0f * in[3 * from];
    out[3 * to] = s3 + d3;
    out[4 * to] = s3 - d3;
    out[5 * to] = in[0 * from] + 0.5f * in[1 * from] + 0.25f * in[2 * from] + 0.125f * in[3 * from] + 0.0625f * in[4 * from];
    out[6 * to] = in[4 * from];
}

INLINE void image_6(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = 4.0f * in[0 * from] - 21.0f * in[2 * from] + 21.0f * in[4 * from] - 4.0f * in[6 * from];
    const lanes s1 = - 4.0f * in[2 * from] + 17.0f * in[4 * from] - 4.0f * in[6 * from];
    const lanes d1 = - 4.0f * in[1 * from] + 17.0f * in[3 * from] - 4.0f * in[5 * from];
    out[1 * to] = s1 + d1;
    out[2 * to] = s1 - d1;
    const lanes s3 = in[2 * from] - 5.0f * in[4 * from] + 4.0f * in[6 * from];
    const lanes d3 = 2.0f * in[1 * from] - 10.0f * in[3 * from] + 8.0f * in[5 * from];
    out[3 * to] = s3 + d3;
    out[4 * to] = s3 - d3;
    const lanes s5 = 128.0f * in[2 * from] - 160.0f * in[4 * from] + 32.0f * in[6 * from];
    const lanes d5 = 64.0f * in[1 * from] - 80.0f * in[3 * from] + 16.0f * in[5 * from];
    out[5 * to] = s5 + d5;
    out[6 * to] = s5 - d5;
    out[7 * to] = - 4.0f * in[1 * from] + 21.0f * in[3 * from] - 21.0f * in[5 * from] + 4.0f * in[7 * from];
}

INLINE void image_transposed_6(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = 4.0f * in[0 * from];
    out[1 * to] = - 4.0f * in[1 * from] + 4.0f * in[2 * from] + 2.0f * in[3 * from] - 2.0f * in[4 * from] + 64.0f * in[5 * from] - 64.0f * in[6 * from] - 4.0f * in[7 * from];
    out[2 * to] = - 21.0f * in[0 * from] - 4.0f * in[1 * from] - 4.0f * in[2 * from] + in[3 * from] + in[4 * from] + 128.0f * in[5 * from] + 128.0f * in[6 * from];
    out[3 * to] = 17.0f * in[1 * from] - 17.0f * in[2 * from] - 10.0f * in[3 * from] + 10.0f * in[4 * from] - 80.0f * in[5 * from] + 80.0f * in[6 * from] + 21.0f * in[7 * from];
    out[4 * to] = 21.0f * in[0 * from] + 17.0f * in[1 * from] + 17.0f * in[2 * from] - 5.0f * in[3 * from] - 5.0f * in[4 * from] - 160.0f * in[5 * from] - 160.0f * in[6 * from];
    out[5 * to] = - 4.0f * in[1 * from] + 4.0f * in[2 * from] + 8.0f * in[3 * from] - 8.0f * in[4 * from] + 16.0f * in[5 * from] - 16.0f * in[6 * from] - 21.0f * in[7 * from];
    out[6 * to] = - 4.0f * in[0 * from] - 4.0f * in[1 * from] - 4.0f * in[2 * from] + 4.0f * in[3 * from] + 4.0f * in[4 * from] + 32.0f * in[5 * from] + 32.0f * in[6 * from];
    out[7 * to] = 4.0f * in[7 * from];
}

INLINE void output_6(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = in[0 * from] + in[1 * from] + in[2 * from] + in[3 * from] + in[4 * from] + in[5 * from] + in[6 * from];
    out[1 * to] = in[1 * from] - in[2 * from] + 2.0f * in[3 * from] - 2.0f * in[4 * from] + 0.5f * in[5 * from] - 0.5f * in[6 * from];
    out[2 * to] = in[1 * from] + in[2 * from] + 4.0f * in[3 * from] + 4.0f * in[4 * from] + 0.25f * in[5 * from] + 0.25f * in[6 * from];
    out[3 * to] = in[1 * from] - in[2 * from] + 8.0f * in[3 * from] - 8.0f * in[4 * from] + 0.125f * in[5 * from] - 0.125f * in[6 * from];
    out[4 * to] = in[1 * from] + in[2 * from] + 16.0f * in[3 * from] + 16.0f * in[4 * from] + 0.0625f * in[5 * from] + 0.0625f * in[6 * from];
    out[5 * to] = in[1 * from] - in[2 * from] + 32.0f * in[3 * from] - 32.0f * in[4 * from] + 0.03125f * in[5 * from] - 0.03125f * in[6 * from] + in[7 * from];
}

INLINE void output_transposed_6(const lanes *in, const long from, lanes *out, const long to)
{
    out[0 * to] = in[0 * from];
    const lanes s1 = in[0 * from] + in[2 * from] + in[4 * from];
    const lanes d1 = in[1 * from] + in[3 * from] + in[5 * from];
    out[1 * to] = s1 + d1;
    out[2 * to] = s1 - d1;
    const lanes s3 = in[0 * from] + 4.0f * in[2 * from] + 16.0f * in[4 * from];
    const lanes d3 = 2.0f * in[1 * from] + 8.0f * in[3 * from] + 32.0f * in[5 * from];
    out[3 * to] = s3 + d3;
    out[4 * to] = s3 - d3;
    const lanes s5 = in[0 * from] + 0.25f * in[2 * from] + 0.0625f * in[4 * from];
    const lanes d5 = 0.5f * in[1 * from] + 0.125f * in[3 * from] + 0.03125f * in[5 * from];
    out[5 * to] = s5 + d5;
    out[6 * to] = s5 - d5;
    out[7 * to] = in[5 * from];
}

#endif
