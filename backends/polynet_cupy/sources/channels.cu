// Batch normalisation: a block of threads for each channel of (samples, channels, size).

// Where number j of a channel stands.
__device__ integer place(int j, int channel, integer channels, integer size) {
    return ((integer)(j / (int)size) * channels + channel) * size + j % (int)size;
}

// y = (x - mean)·r·weight + bias, with r = 1 / √(variance + eps)
KERNEL batch_norm_forward(
    const real* x, const real* weight, const real* bias, real* y, real* means, real* variances,
    integer samples, integer channels, integer size, double eps
) {
    int c = blockIdx.x, n = (int)(samples * size);
    real sum = 0, squares = 0;
    for (int j = threadIdx.x; j < n; j += blockDim.x) sum += x[place(j, c, channels, size)];
    real mean = block_sum(sum) / (real)n;
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
        real centred = x[place(j, c, channels, size)] - mean;
        squares += centred * centred;
    }
    real variance = block_sum(squares) / (real)n, r = 1 / sqrt(variance + (real)eps);
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
        integer at = place(j, c, channels, size);
        real value = (x[at] - mean) * r;
        if (weight) value *= weight[c];
        y[at] = bias ? value + bias[c] : value;
    }
    if (threadIdx.x) return;
    means[c] = mean;
    variances[c] = variance;
}

// Σ g and Σ g·ŷ of each channel, with ŷ = (x - mean)·r: the gradients of bias and weight
KERNEL batch_norm_sums(
    const real* g, const real* x, const real* means, const real* variances, real* sums,
    real* slopes, integer samples, integer channels, integer size, double eps
) {
    int c = blockIdx.x, n = (int)(samples * size);
    real mean = means[c], r = 1 / sqrt(variances[c] + (real)eps), sum = 0, slope = 0;
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
        integer at = place(j, c, channels, size);
        sum += g[at];
        slope += g[at] * ((x[at] - mean) * r);
    }
    sum = block_sum(sum);
    slope = block_sum(slope);
    if (threadIdx.x) return;
    sums[c] = sum;
    slopes[c] = slope;
}

// r·(h - mean(h) - ŷ·mean(h·ŷ)), with h = g·weight; what goes back to mean and variance enters the
// two means, as in polynet.functional.normalisation
KERNEL batch_norm_backward(
    const real* g, const real* x, const real* weight, const real* means, const real* variances,
    const real* sums, const real* slopes, const real* to_means, const real* to_variances, real* out,
    integer samples, integer channels, integer size, double eps
) {
    integer i = here();
    if (i >= samples * channels * size) return;
    int c = (int)(i / size % channels);
    real n = (real)(samples * size), w = weight ? weight[c] : 1;
    real r = 1 / sqrt(variances[c] + (real)eps);
    real level = w * sums[c] / n - to_means[c] / (n * r);
    real slope = w * slopes[c] / n - 2 * to_variances[c] / (n * r * r);
    out[i] = (g[i] * w - level - slope * ((x[i] - means[c]) * r)) * r;
}
