// Optimizers: one launch for many parameters. Their addresses are passed by value, in a table.

#define MOST 48     // arrays in a table: the arguments of a launch, 4 KiB, have room for no more
#define CHUNK 1024  // elements of a block
#define EACH 4      // elements of each of the block's 256 threads; a thread reads all of them
                    // before it writes any, so that the reads are under way together

// For each array: the number of its first block, its size, the addresses that are read (parameter,
// gradient, two slots) and those that are written, which may be the same. Slots may be null.
struct Table {
    integer count;
    integer start[MOST];
    integer size[MOST];
    const real* p[MOST];
    const real* g[MOST];
    const real* a[MOST];
    const real* b[MOST];
    real* new_p[MOST];
    real* new_a[MOST];
    real* new_b[MOST];
};

// The number of the array that this block works on.
__device__ int mine(const Table& table) {
    int k = 0;
    while (k + 1 < table.count && table.start[k + 1] <= blockIdx.x) ++k;
    return k;
}

// Calls update(p, g, a, b) for every element. It changes p, a and b in place, and their new values
// are written to new_p, new_a and new_b.
template <typename Update>
__device__ void update_each(const Table& table, Update update) {
    int k = mine(table);
    integer first = ((integer)blockIdx.x - table.start[k]) * CHUNK + threadIdx.x;
    integer size = table.size[k];
    const real *p = table.p[k], *g = table.g[k], *a = table.a[k], *b = table.b[k];
    real *new_p = table.new_p[k], *new_a = table.new_a[k], *new_b = table.new_b[k];
    real ps[EACH], gs[EACH], as[EACH], bs[EACH];
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        integer i = first + j * blockDim.x;
        if (i >= size) break;
        ps[j] = p[i];
        gs[j] = g[i];
        as[j] = a ? a[i] : 0;
        bs[j] = b ? b[i] : 0;
    }
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        integer i = first + j * blockDim.x;
        if (i >= size) break;
        update(ps[j], gs[j], as[j], bs[j]);
        new_p[i] = ps[j];
        if (new_a) new_a[i] = as[j];
        if (new_b) new_b[i] = bs[j];
    }
}

// The learning rate is *lr, or `constant_lr` where lr is null. A rate that changes from step to
// step is read from memory, since a captured launch keeps the numbers it was given. So is the
// step's number.

// g ← ∇ + λp;  b ← μb + g;  p ← p - η·(g + μb if Nesterov, else b)
KERNEL sgd(
    Table table, const real* lr, double constant_lr, double momentum, integer nesterov, double decay
) {
    real eta = lr ? *lr : (real)constant_lr, mu = momentum, lambda = decay;
    update_each(table, [=](real& p, real g, real& b, real&) {
        if (lambda != 0) g += lambda * p;
        b = mu != 0 ? mu * b + g : g;
        p -= eta * (nesterov ? g + mu * b : b);
    });
}

// g ← ∇ + λp;  v ← αv + (1-α)g²;  d = g / (√v + ε);  b ← μb + d;  p ← p - η·b
KERNEL rmsprop(
    Table table, const real* lr, double constant_lr, double alpha, double eps, double momentum,
    double decay
) {
    real eta = lr ? *lr : (real)constant_lr, mu = momentum, lambda = decay;
    real keep = alpha, rest = 1 - alpha, floor = eps;
    update_each(table, [=](real& p, real g, real& v, real& b) {
        if (lambda != 0) g += lambda * p;
        v = keep * v + rest * (g * g);
        real d = g / (sqrt(v) + floor);
        b = mu != 0 ? mu * b + d : d;
        p -= eta * b;
    });
}

// 1 - βᵗ, without loss of digits where βᵗ is near 1
__device__ real one_minus_power(double log_beta, real t) { return -expm1(t * (real)log_beta); }

// m ← β₁m + (1-β₁)g;  v ← β₂v + (1-β₂)g²;  p ← p - η·m̂ / (√v̂ + ε), as in polynet.optim.
KERNEL adam(
    Table table, const int* step, const real* lr, double constant_lr, double beta1, double beta2,
    double log_beta1, double log_beta2, double eps, double decay, integer decoupled
) {
    real t = (real)step[0] + 1, eta = lr ? *lr : (real)constant_lr;
    real root2 = sqrt(one_minus_power(log_beta2, t)), b1 = beta1, b2 = beta2;
    real rest1 = 1 - beta1, rest2 = 1 - beta2;
    real rate = eta * root2 / one_minus_power(log_beta1, t), floor = (real)eps * root2;
    real coupled = decoupled ? 0 : decay;
    real shrink = !decoupled ? 1 : lr ? 1 - eta * (real)decay : (real)(1 - constant_lr * decay);
    update_each(table, [=](real& p, real g, real& m, real& v) {
        p *= shrink;
        if (coupled != 0) g += coupled * p;
        m = b1 * m + rest1 * g;
        v = b2 * v + rest2 * (g * g);
        p -= rate * (m / (sqrt(v) + floor));
    });
}

// a ← δ·a + (1-δ)·p; at the first step a ← p. In the table a stands as `p`, and p as `g`.
KERNEL moving_average(Table table, const int* step, double decay) {
    real rest = 1 - decay;
    bool first = step[0] == 0;
    update_each(table, [=](real& a, real p, real&, real&) { a = first ? p : a + rest * (p - a); });
}

// Σ g² over the elements of each block
KERNEL squares(Table table, real* sums) {
    int k = mine(table);
    integer first = ((integer)blockIdx.x - table.start[k]) * CHUNK + threadIdx.x;
    real sum = 0;
    for (int j = 0; j < EACH; ++j) {
        integer i = first + j * blockDim.x;
        if (i < table.size[k]) sum += table.g[k][i] * table.g[k][i];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// min(1, most / (√Σ + 10⁻⁶)), with Σ the total of n sums; computed by one block. NaN stays NaN.
KERNEL clip_scale(const real* sums, real* scale, integer n, double most) {
    real sum = 0;
    for (integer i = threadIdx.x; i < n; i += blockDim.x) sum += sums[i];
    real value = (real)most / (sqrt(block_sum(sum)) + (real)1e-6);
    if (threadIdx.x == 0) *scale = value > 1 ? 1 : value;
}

// g · scale. In the table g stands as `p`.
KERNEL scaled(Table table, const real* scale) {
    real by = *scale;
    update_each(table, [=](real& g, real, real&, real&) { g *= by; });
}
