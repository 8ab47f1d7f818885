// Elementwise kernels, in which a thread takes a pack of neighbouring numbers; and sums over
// columns.

__device__ bool packed(const void* a, const void* b, const void* c) {
    return (((size_t)a | (size_t)b | (size_t)c) & (sizeof(Pack) - 1)) == 0;
}

// out[i] = f(a[i], b[i]) for the numbers of this thread's pack. The arrays need not be aligned.
template <typename Function>
__device__ void each(const real* a, const real* b, real* out, integer size, Function f) {
    integer i = here() * PACK;
    if (i + PACK <= size && packed(a, b, out)) {
        Pack x = *(const Pack*)(a + i), y = *(const Pack*)(b + i);
        for (int k = 0; k < PACK; ++k) x.at[k] = f(x.at[k], y.at[k]);
        *(Pack*)(out + i) = x;
    } else {
        for (integer end = i + PACK; i < end && i < size; ++i) out[i] = f(a[i], b[i]);
    }
}

// max(x, 0). NaN <= 0 is false, so NaN stays NaN.
KERNEL relu_forward(const real* x, real* y, integer size) {
    each(x, x, y, size, [](real value, real) { return value <= 0 ? 0 : value; });
}

// g where x > 0 or x is NaN, else 0. These are the places where the result y is not 0.
KERNEL relu_backward(const real* g, const real* y, real* out, integer size) {
    each(g, y, out, size, [](real slope, real value) { return value == 0 ? 0 : slope; });
}

#define SQRT_HALF 0.70710678118654752440
#define SQRT_HALF_OVER_PI 0.39894228040143267794

// x·Φ(x), with Φ the distribution function of the standard normal
KERNEL gelu_forward(const real* x, real* y, integer size) {
    each(x, x, y, size, [](real value, real) {
        return value * (erf(value * (real)SQRT_HALF) * (real)0.5 + (real)0.5);
    });
}

// g·(Φ(x) + x·φ(x)), with φ the density
KERNEL gelu_backward(const real* g, const real* x, real* out, integer size) {
    each(g, x, out, size, [](real slope, real value) {
        real below = (erf(value * (real)SQRT_HALF) + 1) * (real)0.5;
        real density = exp(value * value * (real)-0.5) * (real)SQRT_HALF_OVER_PI;
        return slope * (below + value * density);
    });
}

// y += bias, in place; the bias has n numbers, one for each column
KERNEL add_bias(real* y, const real* bias, integer size, integer n) {
    integer i = here();
    if (i < size) y[i] += bias[divided(i, n).rest];
}

// The nearest number with eight significant bits; of two that are equally near, the even one. NaN
// stays NaN.
__device__ bfloat16 rounded(float x) {
    unsigned bits = __float_as_uint(x), nearest = bits + 0x7fff + (bits >> 16 & 1);
    return (bfloat16)((x == x ? nearest : bits | 0x400000) >> 16);
}

struct alignas(16) Floats { float at[4]; };
struct alignas(8) Halves { bfloat16 at[4]; };

KERNEL to_bfloat16(const float* x, bfloat16* out, integer size) {
    integer i = here() * 4;
    if (i + 4 <= size && packed(x, x, x) && ((size_t)out & (sizeof(Halves) - 1)) == 0) {
        Floats given = *(const Floats*)(x + i);
        Halves found;
        for (int k = 0; k < 4; ++k) found.at[k] = rounded(given.at[k]);
        *(Halves*)(out + i) = found;
    } else {
        for (integer end = i + 4; i < end && i < size; ++i) out[i] = rounded(x[i]);
    }
}

// x / keep where the mask is true, else 0. The backward pass is the same function of g.
KERNEL dropout(const real* x, const bool* mask, real* y, integer size, double keep) {
    integer i = here();
    if (i < size) y[i] = mask[i] ? x[i] / (real)keep : 0;
}

#define LANES 16

// Neighbouring numbers of a row, which a thread reads or writes at once.
template <typename number, int n> struct alignas(n * sizeof(number)) Beside { number at[n]; };

__device__ void convert(real value, real& to) { to = value; }
__device__ void convert(real value, bfloat16& to) { to = rounded((float)value); }

// Sums of `chunk` rows each, by column: out[c, j] = Σ x[i, j] over the rows i of chunk c. If `kept`
// is given, a number counts as 0 where `kept` is 0: `kept` is the result of a ReLU, and there the
// ReLU let nothing through. If `to` is given, the terms of the sums are written to it. A thread
// sums n columns, and the columns of a warp are neighbours. Each column is summed in LANES parts,
// which are then added in pairs.
template <int n, typename number>
__device__ void sum_columns(
    const real* x, const real* kept, real* out, integer rows, integer columns, integer chunk,
    number* to
) {
    typedef Beside<real, n> Some;
    // `to` is indexed as an array of Terms below: the compiler splits the write otherwise.
    typedef Beside<number, n> Terms;
    __shared__ Some parts[LANES][WARP];
    integer tiles = (columns + WARP * n - 1) / (WARP * n);
    integer part = blockIdx.x / tiles, j = (blockIdx.x % tiles * WARP + threadIdx.x % WARP) * n;
    integer end = (part + 1) * chunk < rows ? (part + 1) * chunk : rows;
    int lane = threadIdx.x / WARP, count = ((int)(end - part * chunk) - lane + LANES - 1) / LANES;
    integer at = (part * chunk + lane) * columns + j, step = LANES * columns;
    Some sum = {};
    for (int done = 0; j < columns && done < count; done += AT_ONCE) {
        Some some[AT_ONCE] = {};  // rows beyond the end count as 0
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k)
            if (done + k < count) some[k] = *(const Some*)(x + at + k * step);
        if (kept) {
            Some through[AT_ONCE];
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k) {
                through[k] = some[k];
                if (done + k < count) through[k] = *(const Some*)(kept + at + k * step);
            }
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k)
                for (int l = 0; l < n; ++l)
                    if (through[k].at[l] == 0) some[k].at[l] = 0;
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            Terms term;
            for (int l = 0; l < n; ++l) {
                sum.at[l] += some[k].at[l];
                convert(some[k].at[l], term.at[l]);
            }
            if (to && done + k < count) ((Terms*)to)[(at + k * step) / n] = term;
        }
        at += AT_ONCE * step;
    }
    Some* mine = &parts[lane][threadIdx.x % WARP];
    *mine = sum;
    for (int half = LANES / 2; half; half /= 2) {
        __syncthreads();
        if (lane < half)
            for (int l = 0; l < n; ++l) mine->at[l] += mine[half * WARP].at[l];
    }
    if (!lane && j < columns) *(Some*)(out + part * columns + j) = *mine;
}

// A thread sums `each` columns: 1, or as many as a pack has.
#define SUMMED(to) \
    if (each == 1) sum_columns<1>(x, kept, out, rows, columns, chunk, to); \
    else sum_columns<PACK>(x, kept, out, rows, columns, chunk, to)

KERNEL column_sum(
    const real* x, const real* kept, real* out, integer rows, integer columns, integer chunk,
    integer each
) {
    SUMMED((real*)0);
}

KERNEL column_sum_and_terms(
    const real* x, const real* kept, real* out, integer rows, integer columns, integer chunk,
    integer each, real* to
) {
    SUMMED(to);
}

KERNEL column_sum_to_bfloat16(
    const real* x, const real* kept, real* out, integer rows, integer columns, integer chunk,
    integer each, bfloat16* to
) {
    SUMMED(to);
}
