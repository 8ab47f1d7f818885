// Softmax, cross entropy and layer normalisation: a block of threads for each row.

// The index at which row `blockIdx.x` begins. A row is a slice along any one axis: it has n
// numbers, and from one to the next the index grows by `inner`.
__device__ integer row_start(integer n, integer inner) {
    Divided row = divided(blockIdx.x, inner);
    return row.whole * n * inner + row.rest;
}

// `over` the numbers of a row.
template <typename At, typename See> __device__ void over_row(integer n, At at, See see) {
    over((integer)0, n, at, see);
}

// What is subtracted from a row before exp, so that exp does not overflow: the row's largest
// number, or 0 where all its numbers are -∞. NaN needs no special case: it makes the sum NaN, and
// so the row.
__device__ real taken_off(real top) {
    return top == -INFINITY_ ? 0 : top;
}

template <typename At> __device__ real row_top(integer n, At at) {
    real top = -INFINITY_;
    over_row(n, at, [&](integer, real value) {
        if (value > top) top = value;
    });
    return taken_off(block_max(top));
}

// y = exp(x) / Σ exp(x)
KERNEL softmax_forward(const real* x, real* y, integer n, integer inner) {
    integer start = row_start(n, inner);
    auto at = [=](integer j) { return x[start + j * inner]; };
    real top = row_top(n, at), sum = 0;
    over_row(n, at, [&](integer, real value) { sum += exp(value - top); });
    sum = block_sum(sum);
    over_row(n, at, [&](integer j, real value) { y[start + j * inner] = exp(value - top) / sum; });
}

// (g - Σ g·y)·y
KERNEL softmax_backward(const real* g, const real* y, real* out, integer n, integer inner) {
    integer start = row_start(n, inner);
    auto at = [=](integer j) { return Two{g[start + j * inner], y[start + j * inner]}; };
    real sum = 0;
    over_row(n, at, [&](integer, Two slope) { sum += slope.one * slope.other; });
    sum = block_sum(sum);
    over_row(n, at, [&](integer j, Two slope) {
        out[start + j * inner] = (slope.one - sum) * slope.other;
    });
}

// Which of the n keys a query may look at. The mask must allow the key; the mask has `period` rows,
// which repeat. If `causal`, the key must also stand no later than the query does among `targets`.
template <bool masked> struct Look { const bool* mask; integer last; };

template <bool masked> __device__ Look<masked> look_of_block(
    const bool* mask, integer n, integer period, integer targets, integer causal
) {
    return {masked ? mask + blockIdx.x % period * n : mask, causal ? blockIdx.x % targets : n};
}

// All reads take place whether the key is looked at or not (hence `&`): so none waits for another.
template <bool masked> __device__ bool sees(Look<masked> look, integer j) {
    return (masked ? look.mask[j] : true) & (j <= look.last);
}

template <bool masked>
__device__ void attend(const real* x, Look<masked> look, real* y, integer n, real s) {
    auto at = [=](integer j) {
        real value = x[j];
        return sees(look, j) ? value : -INFINITY_;
    };
    real top = row_top(n, at), sum = 0;
    auto share = [=](real value) { return value == -INFINITY_ ? 0 : exp((value - top) * s); };
    over_row(n, at, [&](integer, real value) { sum += share(value); });
    sum = block_sum(sum);
    over_row(n, at, [&](integer j, real value) { y[j] = share(value) / sum; });
}

// y = exp(s·x) / Σ exp(s·x) over the keys that are looked at, and 0 at the other keys; s > 0
KERNEL attention_forward(
    const real* x, const bool* mask, real* y, integer n, integer period, integer targets,
    integer causal, double scale
) {
    integer at = blockIdx.x * n;
    real s = (real)scale;
    if (mask) attend(x + at, look_of_block<true>(mask, n, period, targets, causal), y + at, n, s);
    else attend(x + at, look_of_block<false>(mask, n, period, targets, causal), y + at, n, s);
}

template <bool masked>
__device__ void attend_back(
    const real* g, const real* y, Look<masked> look, real* out, integer n, real s
) {
    struct Slope { real g, y; bool seen; };
    auto at = [=](integer j) { return Slope{g[j], y[j], sees(look, j)}; };
    real sum = 0;
    over_row(n, at, [&](integer, Slope slope) { sum += slope.seen ? slope.g * slope.y : 0; });
    sum = block_sum(sum);
    over_row(n, at, [&](integer j, Slope slope) {
        out[j] = slope.seen ? (slope.g - sum) * slope.y * s : 0;
    });
}

// s·(g - Σ g·y)·y, and 0 at keys that are not looked at
KERNEL attention_backward(
    const real* g, const bool* mask, const real* y, real* out, integer n, integer period,
    integer targets, integer causal, double scale
) {
    integer at = blockIdx.x * n;
    real s = (real)scale;
    g += at, y += at, out += at;
    if (mask) attend_back(g, y, look_of_block<true>(mask, n, period, targets, causal), out, n, s);
    else attend_back(g, y, look_of_block<false>(mask, n, period, targets, causal), out, n, s);
}

// y = x - log Σ exp(x)
KERNEL log_softmax_forward(const real* x, real* y, integer n, integer inner) {
    integer start = row_start(n, inner);
    auto at = [=](integer j) { return x[start + j * inner]; };
    real top = row_top(n, at), sum = 0;
    over_row(n, at, [&](integer, real value) { sum += exp(value - top); });
    real log_sum = log(block_sum(sum));
    over_row(n, at, [&](integer j, real value) { y[start + j * inner] = value - top - log_sum; });
}

// g - exp(y)·Σ g
KERNEL log_softmax_backward(const real* g, const real* y, real* out, integer n, integer inner) {
    integer start = row_start(n, inner);
    real sum = 0;
    over_row(
        n, [=](integer j) { return g[start + j * inner]; },
        [&](integer, real slope) { sum += slope; }
    );
    sum = block_sum(sum);
    over_row(
        n, [=](integer j) { return Two{g[start + j * inner], y[start + j * inner]}; },
        [&](integer j, Two both) { out[start + j * inner] = both.one - sum * exp(both.other); }
    );
}

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

// Calls `see` with each number of a row that belongs to this thread. Where rows consist of whole
// packs, a thread takes whole packs. Its numbers and their order then do not depend on where the
// row begins, so neither do the bits of a sum.
template <typename See> __device__ void each_of_row(const real* row, integer n, See see) {
    if (n % PACK)
        for (integer j = threadIdx.x; j < n; j += blockDim.x) see(row[j]);
    else if (((size_t)row & (sizeof(Pack) - 1)) == 0)
        packs_of_row<true>(row, n, see);
    else
        packs_of_row<false>(row, n, see);
}

// For each row: log Σ exp(x), as the sum of two numbers, which go to `tops` and `logs`; and its
// loss, log Σ exp(x) - x[label]. Where a label is no class, the loss is NaN, as in the definition.
KERNEL cross_entropy_forward(
    const real* x, const void* labels, integer wide, real* tops, real* logs, real* losses, integer n
) {
    integer row = blockIdx.x, label = integer_at(labels, wide, row);
    const real* scores = x + row * n;
    real top = -INFINITY_, sum = 0;
    each_of_row(scores, n, [&](real value) {
        if (value > top) top = value;
    });
    top = taken_off(block_max(top));
    each_of_row(scores, n, [&](real value) { sum += exp(value - top); });
    real log_sum = log(block_sum(sum));
    if (threadIdx.x == 0) {
        tops[row] = top;
        logs[row] = log_sum;
        losses[row] = 0 <= label && label < n ? log_sum - (scores[label] - top) : NOT_A_NUMBER;
    }
}

// The same for a few short rows, and the mean of their losses: one block, with one thread per row.
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
        top = taken_off(top);
        for (integer j = 0; j < n; ++j) sum += exp(scores[j] - top);
        real log_sum = log(sum);
        tops[row] = top;
        logs[row] = log_sum;
        loss = 0 <= label && label < n ? log_sum - (scores[label] - top) : NOT_A_NUMBER;
    }
    loss = block_sum(loss);
    if (row == 0) *mean = loss / (real)rows;
}

// (g / rows)·(softmax(x) - one-hot). A thread takes `each` numbers of a row: 1, or a pack.
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

// The mean of n numbers, computed by one block.
KERNEL mean(const real* x, real* out, integer n) {
    real sum = 0;
    over_row(n, [=](integer i) { return x[i]; }, [&](integer, real value) { sum += value; });
    sum = block_sum(sum);
    if (threadIdx.x == 0) *out = sum / (real)n;
}

// y = (x - mean)·r·weight + bias, with r = 1 / √(variance + eps). The mean and r of each row are
// written to `means` and `scales`.
KERNEL layer_norm_forward(
    const real* x, const real* weight, const real* bias, real* y, real* means, real* scales,
    integer n, double eps
) {
    integer start = blockIdx.x * n;
    auto at = [=](integer j) { return x[start + j]; };
    real sum = 0, squares = 0;
    over_row(n, at, [&](integer, real value) { sum += value; });
    real mean = block_sum(sum) / (real)n;
    over_row(n, at, [&](integer, real value) { squares += (value - mean) * (value - mean); });
    real r = 1 / sqrt(block_sum(squares) / (real)n + (real)eps);
    struct Affine { real x, weight, bias; };
    auto all = [=](integer j) {
        return Affine{x[start + j], weight ? weight[j] : 1, bias ? bias[j] : 0};
    };
    over_row(n, all, [&](integer j, Affine a) {
        y[start + j] = (a.x - mean) * r * a.weight + a.bias;
    });
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
    integer start = blockIdx.x * n;
    real mean = means[blockIdx.x], r = scales[blockIdx.x], sum = 0, slope = 0;
    auto at = [=](integer j) {
        return Two{weight ? g[start + j] * weight[j] : g[start + j], (x[start + j] - mean) * r};
    };
    over_row(n, at, [&](integer, Two h) {
        sum += h.one;
        slope += h.one * h.other;
    });
    sum = block_sum(sum) / (real)n;
    slope = block_sum(slope) / (real)n;
    over_row(n, at, [&](integer j, Two h) { out[start + j] = (h.one - sum - slope * h.other) * r; });
}

// ŷ·g: the weight's gradient is its sum over the rows
KERNEL layer_norm_weighted(
    const real* g, const real* x, const real* means, const real* scales, real* out, integer size,
    integer n
) {
    integer i = here();
    if (i >= size) return;
    integer row = divided(i, n).whole;
    out[i] = g[i] * ((x[i] - means[row]) * scales[row]);
}
