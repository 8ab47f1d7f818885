// Softmax, cross entropy and layer normalisation: a block of threads for each row.

// Where row `blockIdx.x` begins. A row has n numbers, `inner` apart: a slice along any one axis.
__device__ integer row_start(integer n, integer inner) {
    Divided row = divided(blockIdx.x, inner);
    return row.whole * n * inner + row.rest;
}

// The largest number of a row where it is finite, else 0: what keeps exp from overflow. One that is
// not a number needs no care: it makes the sum, and so the row, NaN.
__device__ real row_top(const real* x, integer n, integer inner) {
    real top = -INFINITY_;
    for (integer j = threadIdx.x; j < n; j += blockDim.x) {
        real value = x[j * inner];
        if (value > top) top = value;
    }
    top = block_max(top);
    return top - top == 0 ? top : 0;
}

// y = exp(x) / Σ exp(x)
KERNEL softmax_forward(const real* x, real* y, integer n, integer inner) {
    integer at = row_start(n, inner);
    real top = row_top(x + at, n, inner), sum = 0;
    for (integer j = threadIdx.x; j < n; j += blockDim.x) sum += exp(x[at + j * inner] - top);
    sum = block_sum(sum);
    for (integer j = threadIdx.x; j < n; j += blockDim.x)
        y[at + j * inner] = exp(x[at + j * inner] - top) / sum;
}

// (g - Σ g·y)·y
KERNEL softmax_backward(const real* g, const real* y, real* out, integer n, integer inner) {
    integer at = row_start(n, inner);
    real sum = 0;
    for (integer j = threadIdx.x; j < n; j += blockDim.x)
        sum += g[at + j * inner] * y[at + j * inner];
    sum = block_sum(sum);
    for (integer j = threadIdx.x; j < n; j += blockDim.x)
        out[at + j * inner] = (g[at + j * inner] - sum) * y[at + j * inner];
}

// Which of the n keys a query may look at: those that the mask allows, whose rows come again and
// again, `period` of them; and, where `causal`, those up to its own place among `targets`.
struct Look { const bool* mask; integer last; };

__device__ Look look_of_block(
    const bool* mask, integer n, integer period, integer targets, integer causal
) {
    return {mask ? mask + blockIdx.x % period * n : mask, causal ? blockIdx.x % targets : n};
}

__device__ bool sees(Look look, integer j) { return j <= look.last && (!look.mask || look.mask[j]); }

// y = exp(s·x) / Σ exp(s·x) over the keys that are looked at, 0 at the others; s > 0
KERNEL attention_forward(
    const real* x, const bool* mask, real* y, integer n, integer period, integer targets,
    integer causal, double scale
) {
    Look look = look_of_block(mask, n, period, targets, causal);
    const real* row = x + blockIdx.x * n;
    real top = -INFINITY_, sum = 0, s = (real)scale;
    for (integer j = threadIdx.x; j < n; j += blockDim.x)
        if (sees(look, j) && row[j] > top) top = row[j];
    top = block_max(top);
    if (top - top != 0) top = 0;
    for (integer j = threadIdx.x; j < n; j += blockDim.x)
        if (sees(look, j)) sum += exp((row[j] - top) * s);
    sum = block_sum(sum);
    for (integer j = threadIdx.x; j < n; j += blockDim.x)
        y[blockIdx.x * n + j] = (sees(look, j) ? exp((row[j] - top) * s) : 0) / sum;
}

// s·(g - Σ g·y)·y, and 0 at keys that are not looked at
KERNEL attention_backward(
    const real* g, const bool* mask, const real* y, real* out, integer n, integer period,
    integer targets, integer causal, double scale
) {
    Look look = look_of_block(mask, n, period, targets, causal);
    integer at = blockIdx.x * n;
    real sum = 0, s = (real)scale;
    for (integer j = threadIdx.x; j < n; j += blockDim.x)
        if (sees(look, j)) sum += g[at + j] * y[at + j];
    sum = block_sum(sum);
    for (integer j = threadIdx.x; j < n; j += blockDim.x)
        out[at + j] = sees(look, j) ? (g[at + j] - sum) * y[at + j] * s : 0;
}

// y = x - log Σ exp(x)
KERNEL log_softmax_forward(const real* x, real* y, integer n, integer inner) {
    integer at = row_start(n, inner);
    real top = row_top(x + at, n, inner), sum = 0;
    for (integer j = threadIdx.x; j < n; j += blockDim.x) sum += exp(x[at + j * inner] - top);
    real log_sum = log(block_sum(sum));
    for (integer j = threadIdx.x; j < n; j += blockDim.x)
        y[at + j * inner] = x[at + j * inner] - top - log_sum;
}

// g - exp(y)·Σ g
KERNEL log_softmax_backward(const real* g, const real* y, real* out, integer n, integer inner) {
    integer at = row_start(n, inner);
    real sum = 0;
    for (integer j = threadIdx.x; j < n; j += blockDim.x) sum += g[at + j * inner];
    sum = block_sum(sum);
    for (integer j = threadIdx.x; j < n; j += blockDim.x)
        out[at + j * inner] = g[at + j * inner] - sum * exp(y[at + j * inner]);
}

#define AT_ONCE 4  // packs of a row that a thread has under way together

template <bool aligned, typename See>
__device__ void packs_of_row(const real* row, integer n, See see) {
    integer step = blockDim.x * PACK;
    for (integer j = threadIdx.x * PACK; j < n; j += AT_ONCE * step) {
        Pack some[AT_ONCE] = {};
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k)
            if (j + k * step < n) {
                const real* at = row + j + k * step;
                if (aligned) some[k] = *(const Pack*)at;
                else for (int l = 0; l < PACK; ++l) some[k].at[l] = at[l];
            }
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k)
            if (j + k * step < n)
                for (int l = 0; l < PACK; ++l) see(some[k].at[l]);
    }
}

// `see` each number that is this thread's of a row: by packs, where rows are of whole ones; then they
// are the same numbers in the same order wherever the row begins.
template <typename See> __device__ void each_of_row(const real* row, integer n, See see) {
    if (n % PACK)
        for (integer j = threadIdx.x; j < n; j += blockDim.x) see(row[j]);
    else if (((size_t)row & (sizeof(Pack) - 1)) == 0)
        packs_of_row<true>(row, n, see);
    else
        packs_of_row<false>(row, n, see);
}

// For each row, log Σ exp(x) in two parts, `tops` and `logs`, and its loss, log Σ exp(x) less
// x[label]; a label that is no class picks nothing, as in the definition.
KERNEL cross_entropy_forward(
    const real* x, const void* labels, integer wide, real* tops, real* logs, real* losses, integer n
) {
    integer row = blockIdx.x, label = integer_at(labels, wide, row);
    const real* scores = x + row * n;
    real top = -INFINITY_, sum = 0;
    each_of_row(scores, n, [&](real value) {
        if (value > top) top = value;
    });
    top = block_max(top);
    top = top - top == 0 ? top : 0;  // as in row_top
    each_of_row(scores, n, [&](real value) { sum += exp(value - top); });
    real log_sum = log(block_sum(sum));
    if (threadIdx.x == 0) {
        tops[row] = top;
        logs[row] = log_sum;
        losses[row] = 0 <= label && label < n ? log_sum - (scores[label] - top) : 0;
    }
}

// The same of few rows of few numbers, with the mean of their losses: one block, a thread a row.
KERNEL cross_entropy_of_few(
    const real* x, const void* labels, integer wide, real* tops, real* logs, real* mean,
    integer rows, integer n
) {
    integer row = threadIdx.x;
    real loss = 0;
    if (row < rows) {
        const real* scores = x + row * n;
        integer label = integer_at(labels, wide, row);
        real top = -INFINITY_, sum = 0;
        for (integer j = 0; j < n; ++j)
            if (scores[j] > top) top = scores[j];
        if (top - top != 0) top = 0;
        for (integer j = 0; j < n; ++j) sum += exp(scores[j] - top);
        real log_sum = log(sum);
        tops[row] = top;
        logs[row] = log_sum;
        if (0 <= label && label < n) loss = log_sum - (scores[label] - top);
    }
    loss = block_sum(loss);
    if (row == 0) *mean = loss / (real)rows;
}

// (g / rows)·(softmax(x) - one-hot). A thread has `each` numbers of a row: 1, or a pack.
KERNEL cross_entropy_backward(
    const real* g, const real* x, const void* labels, integer wide, const real* tops,
    const real* logs, real* out, integer rows, integer n, integer each
) {
    integer i = here() * each;
    if (i >= rows * n) return;
    Divided place = divided(i, n);
    integer row = place.whole, column = place.rest, label = integer_at(labels, wide, row);
    real share = 0 <= label && label < n ? *g / (real)rows : 0, top = tops[row], log_sum = logs[row];
    if (each == 1) {
        out[i] = share * (exp(x[i] - top - log_sum) - (column == label ? 1 : 0));
        return;
    }
    Pack some = *(const Pack*)(x + i);
    for (int k = 0; k < PACK; ++k)
        some.at[k] = share * (exp(some.at[k] - top - log_sum) - (column + k == label ? 1 : 0));
    *(Pack*)(out + i) = some;
}

// The mean of n numbers, by one block.
KERNEL mean(const real* x, real* out, integer n) {
    real sum = 0;
    for (integer i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *out = sum / (real)n;
}

// y = (x - mean)·r·weight + bias, with r = 1 / √(variance + eps); mean and r of each row are kept.
KERNEL layer_norm_forward(
    const real* x, const real* weight, const real* bias, real* y, real* means, real* scales,
    integer n, double eps
) {
    integer at = blockIdx.x * n;
    real sum = 0, squares = 0;
    for (integer j = threadIdx.x; j < n; j += blockDim.x) sum += x[at + j];
    real mean = block_sum(sum) / (real)n;
    for (integer j = threadIdx.x; j < n; j += blockDim.x)
        squares += (x[at + j] - mean) * (x[at + j] - mean);
    real r = 1 / sqrt(block_sum(squares) / (real)n + (real)eps);
    for (integer j = threadIdx.x; j < n; j += blockDim.x) {
        real value = (x[at + j] - mean) * r;
        if (weight) value *= weight[j];
        y[at + j] = bias ? value + bias[j] : value;
    }
    if (threadIdx.x == 0) {
        means[blockIdx.x] = mean;
        scales[blockIdx.x] = r;
    }
}

// r·(h - mean(h) - ŷ·mean(h·ŷ)), with h = g·weight and ŷ = (x - mean)·r
KERNEL layer_norm_backward(
    const real* g, const real* x, const real* weight, const real* means, const real* scales,
    real* out, integer n
) {
    integer at = blockIdx.x * n;
    real mean = means[blockIdx.x], r = scales[blockIdx.x], sum = 0, slope = 0;
    for (integer j = threadIdx.x; j < n; j += blockDim.x) {
        real h = weight ? g[at + j] * weight[j] : g[at + j];
        sum += h;
        slope += h * ((x[at + j] - mean) * r);
    }
    sum = block_sum(sum) / (real)n;
    slope = block_sum(slope) / (real)n;
    for (integer j = threadIdx.x; j < n; j += blockDim.x) {
        real h = weight ? g[at + j] * weight[j] : g[at + j];
        out[at + j] = (h - sum - slope * ((x[at + j] - mean) * r)) * r;
    }
}

// ŷ·g, of which the weight's gradient is the sum over the rows
KERNEL layer_norm_weighted(
    const real* g, const real* x, const real* means, const real* scales, real* out, integer size,
    integer n
) {
    integer i = here();
    if (i >= size) return;
    integer row = divided(i, n).whole;
    out[i] = g[i] * ((x[i] - means[row]) * scales[row]);
}
