// What all sources share: this text is put before each of them. The compiler's options set REAL to
// float or double. A Python int is passed to a kernel as `integer`, and a Python float as `double`.
typedef REAL real;
typedef long long integer;
typedef unsigned short bfloat16;  // the upper half of a float's bits

#define KERNEL extern "C" __global__ void
#define WARP 32
#define INFINITY_ ((real)__longlong_as_double(0x7ff0000000000000LL))
#define NOT_A_NUMBER ((real)__longlong_as_double(0x7ff8000000000000LL))

// The numbers that one instruction reads or writes.
struct alignas(16) Pack { real at[16 / sizeof(real)]; };
#define PACK (int)(sizeof(Pack) / sizeof(real))

// The number of this thread among all threads of the grid, for kernels with one thread per element.
__device__ integer here() { return (integer)blockIdx.x * blockDim.x + threadIdx.x; }

// i / n and i % n for i >= 0: a division of 32 bits takes a fraction of the time of one of 64 bits.
struct Divided { integer whole, rest; };

__device__ Divided divided(integer i, integer n) {
    if ((i | n) >> 32) return {i / n, i % n};
    unsigned whole = (unsigned)i / (unsigned)n;
    return {whole, (unsigned)i - whole * (unsigned)n};
}

// Number i of an array of labels or indices, which is int64 if `wide`, else int32.
__device__ integer integer_at(const void* numbers, integer wide, integer i) {
    return wide ? ((const long long*)numbers)[i] : ((const int*)numbers)[i];
}

#define AT_ONCE 4  // reads that a thread has under way together when it goes over memory

// Calls see(i, at(i)) for each place i from `first` to `end` that belongs to this thread of the
// block.
template <typename place, typename At, typename See>
__device__ void over(place first, place end, At at, See see) {
    place step = blockDim.x;
    for (first += threadIdx.x; first < end; first += AT_ONCE * step) {
        decltype(at(first)) found[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k)
            if (first + k * step < end) found[k] = at(first + k * step);
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k)
            if (first + k * step < end) see(first + k * step, found[k]);
    }
}

struct Two { real one, other; };

// The sum of one number from each thread of the block, always in the same order. The block must
// consist of whole warps. Every thread gets the sum.
__device__ real block_sum(real value) {
    __shared__ real parts[WARP];
    for (int offset = WARP / 2; offset; offset /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    __syncthreads();  // other threads may still read the parts of the previous sum
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = value;
    __syncthreads();
    real total = 0;
    for (int i = 0; i < (int)(blockDim.x / WARP); ++i) total += parts[i];
    return total;
}

// The largest of one number from each thread of the block. None of them may be NaN.
__device__ real block_max(real value) {
    __shared__ real parts[WARP];
    for (int offset = WARP / 2; offset; offset /= 2) {
        real other = __shfl_xor_sync(0xffffffffu, value, offset);
        if (other > value) value = other;
    }
    __syncthreads();
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = value;
    __syncthreads();
    real largest = parts[0];
    for (int i = 1; i < (int)(blockDim.x / WARP); ++i)
        if (parts[i] > largest) largest = parts[i];
    return largest;
}
