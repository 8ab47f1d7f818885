// What all sources share; it stands before each of them. REAL, float or double, is set by the
// compiler's options. Whole numbers come as `integer`, numbers as `double`: what Python's are.
typedef REAL real;
typedef long long integer;
typedef unsigned short bfloat16;  // the upper half of a float's bits

#define KERNEL extern "C" __global__ void
#define WARP 32
#define INFINITY_ ((real)__longlong_as_double(0x7ff0000000000000LL))
#define NOT_A_NUMBER ((real)__longlong_as_double(0x7ff8000000000000LL))

// What one instruction reads or writes.
struct alignas(16) Pack { real at[16 / sizeof(real)]; };
#define PACK (int)(sizeof(Pack) / sizeof(real))

// The place of this thread among all, for kernels of one thread an element.
__device__ integer here() { return (integer)blockIdx.x * blockDim.x + threadIdx.x; }

// i / n and i % n, of what is not below 0: 32 bits take a fraction of the time of 64.
struct Divided { integer whole, rest; };

__device__ Divided divided(integer i, integer n) {
    if ((i | n) >> 32) return {i / n, i % n};
    unsigned whole = (unsigned)i / (unsigned)n;
    return {whole, (unsigned)i - whole * (unsigned)n};
}

// Number i of labels or indices that are int64 where `wide`, else int32.
__device__ integer integer_at(const void* numbers, integer wide, integer i) {
    return wide ? ((const long long*)numbers)[i] : ((const int*)numbers)[i];
}

#define AT_ONCE 4  // reads that a thread has under way together, where it goes over memory

// `see` each place from `first` on that is this thread's of the block, and what `at` reads there.
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

// The sum of one number of each thread of the block, in an order that is always the same. A block
// is whole warps; every thread gets the sum.
__device__ real block_sum(real value) {
    __shared__ real parts[WARP];
    for (int offset = WARP / 2; offset; offset /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    __syncthreads();  // somebody may still read the parts of the sum before
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = value;
    __syncthreads();
    real total = 0;
    for (int i = 0; i < (int)(blockDim.x / WARP); ++i) total += parts[i];
    return total;
}

// The largest number of the block's threads, none of which is NaN.
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
