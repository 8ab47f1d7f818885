// Elementwise: a thread has a pack of numbers that stand side by side. And sums over columns.

__device__ bool packed(const void* a, const void* b, const void* c) {
    return (((size_t)a | (size_t)b | (size_t)c) & (sizeof(Pack) - 1)) == 0;
}

// out[i] = f(a[i], b[i]) for the numbers of this thread's pack; arrays may begin anywhere.
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

// max(x, 0); a comparison that sends NaN where it stays NaN
KERNEL relu_forward(const real* x, real* y, integer size) {
    each(x, x, y, size, [](real value, real) { return value <= 0 ? 0 : value; });
}

// g where x > 0, or is not a number: both are where y, the result, is not 0
KERNEL relu_backward(const real* g, const real* y, real* out, integer size) {
    each(g, y, out, size, [](real slope, real value) { return value == 0 ? 0 : slope; });
}

#define SQRT_HALF 0.70710678118654752440
#define SQRT_HALF_OVER_PI 0.39894228040143267794

// x·Φ(x), with Φ the distribution function of the standard normal
KERNEL gelu_forward(const real* x, real* y, integer size) {
    each(x, x, y, size, [](real value, real) {
        return value * (erf(value * (real)SQRT_HALF) + 1) * (real)0.5;
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

// y + bias, over y; the bias has n numbers
KERNEL add_bias(real* y, const real* bias, integer size, integer n) {
    integer i = here();
    if (i < size) y[i] += bias[divided(i, n).rest];
}

// The nearest number of eight bits, of two as near the even one; what is no number stays so.
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

// x / keep where the mask is true, else 0; what goes back is the same of g
KERNEL dropout(const real* x, const bool* mask, real* y, integer size, double keep) {
    integer i = here();
    if (i < size) y[i] = mask[i] ? x[i] / (real)keep : 0;
}

#define LANES 16
#define AT_ONCE 4  // rows that a thread has under way together

// Sums of `chunk` rows each, by column: out[c, j] = Σ x[i, j] over the rows i of chunk c; where
// `kept` is given, of those numbers where it is not 0, which are those that came through a ReLU. A
// block sums WARP columns, each of them in LANES parts, which are added in their order. Of each
// number `seen` hears, and where it stands.
template <typename Seen>
__device__ void sum_columns(
    const real* x, const real* kept, real* out, integer rows, integer columns, integer chunk,
    Seen seen
) {
    __shared__ real parts[LANES][WARP];
    integer tiles = (columns + WARP - 1) / WARP;
    integer part = blockIdx.x / tiles, j = blockIdx.x % tiles * WARP + threadIdx.x % WARP;
    integer end = (part + 1) * chunk < rows ? (part + 1) * chunk : rows;
    int lane = threadIdx.x / WARP, count = ((int)(end - part * chunk) - lane + LANES - 1) / LANES;
    integer at = (part * chunk + lane) * columns + j, step = LANES * columns;
    real sum = 0;
    for (int done = 0; j < columns && done < count; done += AT_ONCE) {
        real some[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) some[k] = done + k < count ? x[at + k * step] : 0;
        if (kept)
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k)
                if (done + k < count && kept[at + k * step] == 0) some[k] = 0;
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            if (done + k < count) seen(at + k * step, some[k]);
            sum += some[k];  // what there is not is 0
        }
        at += AT_ONCE * step;
    }
    parts[lane][threadIdx.x % WARP] = sum;
    __syncthreads();
    if (lane || j >= columns) return;
    for (int k = 1; k < LANES; ++k) sum += parts[k][threadIdx.x];
    out[part * columns + j] = sum;
}

KERNEL column_sum(
    const real* x, const real* kept, real* out, integer rows, integer columns, integer chunk
) {
    sum_columns(x, kept, out, rows, columns, chunk, [](integer, real) {});
}

// With what was summed, as it is or rounded

KERNEL column_sum_and_terms(
    const real* x, const real* kept, real* out, integer rows, integer columns, integer chunk, real* to
) {
    sum_columns(x, kept, out, rows, columns, chunk, [to](integer i, real value) { to[i] = value; });
}

KERNEL column_sum_to_bfloat16(
    const real* x, const real* kept, real* out, integer rows, integer columns, integer chunk,
    bfloat16* to
) {
    sum_columns(x, kept, out, rows, columns, chunk, [to](integer i, real value) {
        to[i] = rounded((float)value);
    });
}
