// Sums by channel, and batch normalisation, of arrays of shape (samples, channels, size). The n =
// samples·size numbers of a channel are cut into parts of `chunk` numbers. Each block of threads
// works on one part of one channel: block number part·channels + channel. A result that is one
// number for each channel is first computed as one number for each block, and the blocks of the
// next kernel combine these.

struct Part { int channel, part, from, end; };

__device__ Part part_of_block(integer n, integer channels, integer chunk) {
    int channel = blockIdx.x % (int)channels, part = blockIdx.x / (int)channels;
    integer end = (part + 1) * chunk;
    return {channel, part, (int)(part * chunk), (int)(end < n ? end : n)};
}

// The index in the array of number j of a channel.
__device__ integer place(int j, int channel, integer channels, integer size) {
    return ((integer)(j / (int)size) * channels + channel) * size + j % (int)size;
}

// How many numbers a thread keeps in registers, so as not to read them again: its share of a part
// of the usual size.
#define HELD 16

// For each part: its mean, and Σ (x - mean)²
KERNEL batch_norm_parts(
    const real* x, real* part_means, real* part_squares, integer samples, integer channels,
    integer size, integer chunk
) {
    Part mine = part_of_block(samples * size, channels, chunk);
    int first = mine.from + (int)threadIdx.x, further = mine.from + HELD * (int)blockDim.x;
    real held[HELD], sum = 0, squares = 0;
#pragma unroll
    for (int k = 0; k < HELD; ++k) {
        int j = first + k * (int)blockDim.x;
        held[k] = j < mine.end ? x[place(j, mine.channel, channels, size)] : 0;
        sum += held[k];
    }
    auto at = [=](int j) { return x[place(j, mine.channel, channels, size)]; };
    over(further, mine.end, at, [&](int, real value) { sum += value; });
    real mean = block_sum(sum) / (real)(mine.end - mine.from);
#pragma unroll
    for (int k = 0; k < HELD; ++k)
        if (first + k * (int)blockDim.x < mine.end) squares += (held[k] - mean) * (held[k] - mean);
    over(further, mine.end, at, [&](int, real value) {
        squares += (value - mean) * (value - mean);
    });
    squares = block_sum(squares);
    if (threadIdx.x) return;
    part_means[blockIdx.x] = mean;
    part_squares[blockIdx.x] = squares;
}

// For each part: Σ x
KERNEL channel_sums(
    const real* x, real* part_sums, integer samples, integer channels, integer size, integer chunk
) {
    Part mine = part_of_block(samples * size, channels, chunk);
    real sum = 0;
    over(
        mine.from, mine.end, [=](int j) { return x[place(j, mine.channel, channels, size)]; },
        [&](int, real value) { sum += value; }
    );
    sum = block_sum(sum);
    if (threadIdx.x == 0) part_sums[blockIdx.x] = sum;
}

// y = (x - mean)·r·weight + bias, with r = 1 / √(variance + eps). The means and squares of the
// parts are combined by the formula of Chan, Golub and LeVeque, "Updating Formulae and a Pairwise
// Algorithm for Computing Sample Variances" (1979).
KERNEL batch_norm_forward(
    const real* x, const real* weight, const real* bias, const real* part_means,
    const real* part_squares, real* y, real* means, real* variances, integer samples,
    integer channels, integer size, integer chunk, double eps
) {
    integer n = samples * size;
    Part mine = part_of_block(n, channels, chunk);
    int c = mine.channel, parts = (int)((n + chunk - 1) / chunk);
    real sum = 0, squares = 0;
    for (int k = threadIdx.x; k < parts; k += blockDim.x) {
        integer count = k + 1 < parts ? chunk : n - k * chunk;
        sum += part_means[k * channels + c] * (real)count;
    }
    real mean = block_sum(sum) / (real)n;
    for (int k = threadIdx.x; k < parts; k += blockDim.x) {
        integer count = k + 1 < parts ? chunk : n - k * chunk;
        real apart = part_means[k * channels + c] - mean;
        squares += part_squares[k * channels + c] + apart * apart * (real)count;
    }
    real variance = block_sum(squares) / (real)n, r = 1 / sqrt(variance + (real)eps);
    real w = weight ? weight[c] : 1, b = bias ? bias[c] : 0;
    over(
        mine.from, mine.end, [=](int j) { return x[place(j, c, channels, size)]; },
        [&](int j, real value) { y[place(j, c, channels, size)] = (value - mean) * r * w + b; }
    );
    if (mine.part || threadIdx.x) return;
    means[c] = mean;
    variances[c] = variance;
}

// For each part: Σ g and Σ g·ŷ, with ŷ = (x - mean)·r
KERNEL batch_norm_sums(
    const real* g, const real* x, const real* means, const real* variances, real* part_sums,
    real* part_slopes, integer samples, integer channels, integer size, integer chunk, double eps
) {
    Part mine = part_of_block(samples * size, channels, chunk);
    int c = mine.channel;
    real mean = means[c], r = 1 / sqrt(variances[c] + (real)eps), sum = 0, slope = 0;
    auto both = [=](int j) {
        integer at = place(j, c, channels, size);
        return Two{g[at], x[at]};
    };
    over(mine.from, mine.end, both, [&](int, Two at) {
        sum += at.one;
        slope += at.one * ((at.other - mean) * r);
    });
    sum = block_sum(sum);
    slope = block_sum(slope);
    if (threadIdx.x) return;
    part_sums[blockIdx.x] = sum;
    part_slopes[blockIdx.x] = slope;
}

// r·(h - mean(h) - ŷ·mean(h·ŷ)), with h = g·weight. Gradients that arrive at the mean and at the
// variance enter the two means, as in polynet.functional.normalisation. Σ g is the gradient
// of the bias, and Σ g·ŷ that of the weight.
KERNEL batch_norm_backward(
    const real* g, const real* x, const real* weight, const real* means, const real* variances,
    const real* part_sums, const real* part_slopes, const real* to_means, const real* to_variances,
    real* out, real* sums, real* slopes, integer samples, integer channels, integer size,
    integer chunk, double eps
) {
    integer n = samples * size;
    Part mine = part_of_block(n, channels, chunk);
    int c = mine.channel, parts = (int)((n + chunk - 1) / chunk);
    real sum = 0, slope = 0;
    for (int k = threadIdx.x; k < parts; k += blockDim.x) {
        sum += part_sums[k * channels + c];
        slope += part_slopes[k * channels + c];
    }
    sum = block_sum(sum);
    slope = block_sum(slope);
    real w = weight ? weight[c] : 1, r = 1 / sqrt(variances[c] + (real)eps), mean = means[c];
    real level = w * sum / (real)n - to_means[c] / ((real)n * r);
    real tilt = w * slope / (real)n - 2 * to_variances[c] / ((real)n * r * r);
    auto both = [=](int j) {
        integer at = place(j, c, channels, size);
        return Two{g[at], x[at]};
    };
    over(mine.from, mine.end, both, [&](int j, Two at) {
        real normal = (at.other - mean) * r;
        out[place(j, c, channels, size)] = (at.one * w - level - tilt * normal) * r;
    });
    if (mine.part || threadIdx.x) return;
    sums[c] = sum;
    slopes[c] = slope;
}
