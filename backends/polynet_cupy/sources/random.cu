// Threefry2x32-20 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).

__device__ unsigned rotated(unsigned x, int by) { return (x << by) | (x >> (32 - by)); }

__device__ void threefry2x32(const int* key, unsigned& x0, unsigned& x1) {
    const int rotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
    unsigned k0 = key[0], k1 = key[1];
    const unsigned keys[3] = {k0, k1, k0 ^ k1 ^ 0x1BD11BDAu};
    x0 += k0;
    x1 += k1;
#pragma unroll
    for (int turn = 0; turn < 5; ++turn) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x0 += x1;
            x1 = rotated(x1, rotations[turn % 2][i]) ^ x0;
        }
        x0 += keys[(turn + 1) % 3];
        x1 += keys[(turn + 2) % 3] + (turn + 1);
    }
}

// A mask that is true where a random half of a word is below `limit`. Each thread makes one
// Threefry block of four halves; the `size` elements of a sample take `blocks` of these. The
// counter is (the sample's position, the step), as in polynet.random.
KERNEL keep_mask(
    const int* key, const int* step, bool* out, integer rows, integer size, integer blocks,
    integer first, integer limit
) {
    integer i = here();
    if (i >= rows * blocks) return;
    unsigned x0 = (unsigned)(first * blocks + i), x1 = (unsigned)step[0];
    threefry2x32(key, x0, x1);
    const unsigned halves[4] = {x0 & 0xffff, x0 >> 16, x1 & 0xffff, x1 >> 16};
    integer row = i / blocks, at = i % blocks * 4;
    for (int k = 0; k < 4; ++k)
        if (at + k < size) out[row * size + at + k] = halves[k] < limit;
}
