// Optimizers: one launch for many parameters, whose addresses come by value in a table.

#define MOST 48   // arrays in a table: 4 KiB of arguments hold no more
#define CHUNK 1024  // elements of a block
#define EACH 4      // elements of a thread, of the block's 256: all are read before any is written,
                    // so that their reads are under way together

// Of each array: the first of its blocks, its size, what is read (parameter, gradient, two slots)
// and where what follows is written, which may be where it was read.
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

// The array that this block is for.
__device__ int mine(const Table& table) {
    int k = 0;
    while (k + 1 < table.count && table.start[k + 1] <= blockIdx.x) ++k;
    return k;
}

// The first element of this thread in array k; the next are a block's threads apart.
__device__ integer first_of_thread(const Table& table, int k) {
    return ((integer)blockIdx.x - table.start[k]) * CHUNK + threadIdx.x;
}

// 1 - βᵗ, exact where βᵗ is near 1
__device__ real one_minus_power(double log_beta, real t) { return -expm1(t * (real)log_beta); }

// m ← β₁m + (1-β₁)g;  v ← β₂v + (1-β₂)g²;  p ← p - η·m̂ / (√v̂ + ε), as polynet.optim has it.
// The rate is *lr where there is one: it may change from step to step, and so may not be a constant
// of the launch. No more may the step.
KERNEL adam(
    Table table, const int* step, const real* lr, double constant_lr, double beta1, double beta2,
    double log_beta1, double log_beta2, double eps, double decay, integer decoupled
) {
    int k = mine(table);
    real t = (real)step[0] + 1, eta = lr ? *lr : (real)constant_lr;
    real root2 = sqrt(one_minus_power(log_beta2, t)), b1 = beta1, b2 = beta2;
    real rest1 = 1 - beta1, rest2 = 1 - beta2;
    real rate = eta * root2 / one_minus_power(log_beta1, t), floor = (real)eps * root2;
    real coupled = decoupled ? 0 : decay;
    real shrink = !decoupled ? 1 : lr ? 1 - eta * (real)decay : (real)(1 - constant_lr * decay);
    integer first = first_of_thread(table, k), size = table.size[k];
    real ps[EACH], gs[EACH], ms[EACH], vs[EACH];
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        integer i = first + j * blockDim.x;
        if (i >= size) break;
        ps[j] = table.p[k][i];
        gs[j] = table.g[k][i];
        ms[j] = table.a[k][i];
        vs[j] = table.b[k][i];
    }
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        integer i = first + j * blockDim.x;
        if (i >= size) break;
        real p = ps[j] * shrink, g = gs[j];
        if (coupled != 0) g += coupled * p;
        real m = b1 * ms[j] + rest1 * g;
        real v = b2 * vs[j] + rest2 * (g * g);
        table.new_p[k][i] = p - rate * (m / (sqrt(v) + floor));
        table.new_a[k][i] = m;
        table.new_b[k][i] = v;
    }
}

// g ← ∇ + λp;  b ← μb + g;  p ← p - η·(g + μb if Nesterov, else b)
KERNEL sgd(
    Table table, const real* lr, double constant_lr, double momentum, integer nesterov, double decay
) {
    int k = mine(table);
    real eta = lr ? *lr : (real)constant_lr, mu = momentum, lambda = decay;
    integer first = first_of_thread(table, k), size = table.size[k];
    real ps[EACH], gs[EACH], bs[EACH];
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        integer i = first + j * blockDim.x;
        if (i >= size) break;
        ps[j] = table.p[k][i];
        gs[j] = table.g[k][i];
        bs[j] = mu != 0 ? table.a[k][i] : 0;
    }
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        integer i = first + j * blockDim.x;
        if (i >= size) break;
        real p = ps[j], g = gs[j];
        if (lambda != 0) g += lambda * p;
        if (mu != 0) {
            real b = mu * bs[j] + g;
            table.new_a[k][i] = b;
            g = nesterov ? g + mu * b : b;
        }
        table.new_p[k][i] = p - eta * g;
    }
}
