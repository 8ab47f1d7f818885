// One thread an element; and sums over columns.

// max(x, 0); a comparison that sends NaN where it stays NaN
KERNEL relu_forward(const real* x, real* y, integer size) {
    integer i = here();
    if (i < size) y[i] = x[i] <= 0 ? 0 : x[i];
}

// g where x > 0, or is not a number: both are where y, the result, is not 0
KERNEL relu_backward(const real* g, const real* y, real* out, integer size) {
    integer i = here();
    if (i < size) out[i] = y[i] == 0 ? 0 : g[i];
}

#define SQRT_HALF 0.70710678118654752440
#define SQRT_HALF_OVER_PI 0.39894228040143267794

// x·Φ(x), with Φ the distribution function of the standard normal
KERNEL gelu_forward(const real* x, real* y, integer size) {
    integer i = here();
    if (i < size) y[i] = x[i] * (erf(x[i] * (real)SQRT_HALF) + 1) * (real)0.5;
}

// g·(Φ(x) + x·φ(x)), with φ the density
KERNEL gelu_backward(const real* g, const real* x, real* out, integer size) {
    integer i = here();
    if (i >= size) return;
    real below = (erf(x[i] * (real)SQRT_HALF) + 1) * (real)0.5;
    out[i] = g[i] * (below + x[i] * exp(x[i] * x[i] * (real)-0.5) * (real)SQRT_HALF_OVER_PI);
}

// y + bias, over y; the bias has n numbers
KERNEL add_bias(real* y, const real* bias, integer size, integer n) {
    integer i = here();
    if (i < size) y[i] += bias[i % n];
}

// The nearest number of eight bits, of two as near the even one; what is no number stays so.
KERNEL to_bfloat16(const float* x, bfloat16* out, integer size) {
    integer i = here();
    if (i >= size) return;
    unsigned bits = __float_as_uint(x[i]);
    unsigned nearest = bits + 0x7fff + (bits >> 16 & 1);
    out[i] = (bfloat16)((x[i] == x[i] ? nearest : bits | 0x400000) >> 16);
}

// x / keep where the mask is true, else 0; what goes back is the same of g
KERNEL dropout(const real* x, const bool* mask, real* y, integer size, double keep) {
    integer i = here();
    if (i < size) y[i] = mask[i] ? x[i] / (real)keep : 0;
}

#define LANES 8

// Sums of `chunk` rows each, by column: out[c, j] = Σ x[i, j] over the rows i of chunk c. A block
// sums WARP columns, each of them in LANES parts, which are added in their order.
KERNEL column_sum(const real* x, real* out, integer rows, integer columns, integer chunk) {
    __shared__ real parts[LANES][WARP];
    integer tiles = (columns + WARP - 1) / WARP;
    integer part = blockIdx.x / tiles, j = blockIdx.x % tiles * WARP + threadIdx.x % WARP;
    integer lane = threadIdx.x / WARP, end = (part + 1) * chunk < rows ? (part + 1) * chunk : rows;
    real sum = 0;
    if (j < columns)
        for (integer i = part * chunk + lane; i < end; i += LANES) sum += x[i * columns + j];
    parts[lane][threadIdx.x % WARP] = sum;
    __syncthreads();
    if (lane || j >= columns) return;
    for (int k = 1; k < LANES; ++k) sum += parts[k][threadIdx.x];
    out[part * columns + j] = sum;
}
