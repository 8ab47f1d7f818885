// What a CUDA source needs to run on the host. The threads of a block are coroutines that take turns.
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__ static
// Blocks run one after another, so one copy is enough. Each block finds what the last one left there.
#define __shared__ static

struct Dim { unsigned x; };
static Dim blockIdx, blockDim, threadIdx;
using std::erf;
using std::exp;
using std::expm1;
using std::log;
using std::sqrt;

static double __longlong_as_double(long long bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static long long clock64() {
    static long long now;
    return ++now;
}

static unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

namespace host {

struct Fiber { ucontext_t context; bool done; };
struct Barrier { unsigned alive, arrived, generation; };

static ucontext_t scheduler;
static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static std::function<void()> kernel;
static Barrier block;
static std::vector<Barrier> warps;
static std::vector<double> slots;
static unsigned long progress;
static bool backwards;  // whether the last block, warp and thread run first
const size_t STACK = 64 << 10;

static void release(Barrier& b) {
    if (b.alive && b.arrived < b.alive) return;
    b.arrived = 0;
    ++b.generation;
    ++progress;
}

static void wait(Barrier& b) {
    unsigned mine = threadIdx.x, generation = b.generation;
    ++b.arrived;
    release(b);
    while (b.generation == generation) {
        swapcontext(&fibers[mine].context, &scheduler);
    }
}

static void enter() {
    kernel();
    unsigned mine = threadIdx.x;
    fibers[mine].done = true;
    ++progress;
    --block.alive;
    if (block.arrived) release(block);
    Barrier& warp = warps[mine / 32];
    --warp.alive;
    if (warp.arrived) release(warp);
}

// Runs each thread of a warp until it waits. When running backwards, this is repeated until none of
// them can go on, so that the warp gets as far ahead of the others as barriers allow.
static void run_warp(unsigned warp, unsigned threads) {
    unsigned first = warp * 32, count = threads - first < 32 ? threads - first : 32;
    unsigned long before;
    do {
        before = progress;
        for (unsigned n = 0; n < count; ++n) {
            unsigned t = first + (backwards ? count - 1 - n : n);
            if (fibers[t].done) continue;
            threadIdx.x = t;
            swapcontext(&scheduler, &fibers[t].context);
        }
    } while (backwards && progress != before);
}

static void run_block(unsigned threads) {
    block = {threads, 0, 0};
    warps.assign((threads + 31) / 32, Barrier{0, 0, 0});
    for (unsigned t = 0; t < threads; ++t) ++warps[t / 32].alive;
    slots.resize(threads);
    fibers.resize(threads);
    stacks.resize(threads * STACK);
    for (unsigned t = 0; t < threads; ++t) {
        getcontext(&fibers[t].context);
        fibers[t].context.uc_stack.ss_sp = &stacks[t * STACK];
        fibers[t].context.uc_stack.ss_size = STACK;
        fibers[t].context.uc_link = &scheduler;
        fibers[t].done = false;
        makecontext(&fibers[t].context, enter, 0);
    }
    unsigned count = (unsigned)warps.size();
    while (block.alive) {
        unsigned long before = progress;
        for (unsigned n = 0; n < count; ++n) run_warp(backwards ? count - 1 - n : n, threads);
        if (block.alive && progress == before) {
            fprintf(stderr, "threads of a block wait for one another\n");
            abort();
        }
    }
}

// Runs a kernel over a grid. Only a kernel that synchronizes needs coroutines.
static void run(long long blocks, long long threads, bool synchronizes, std::function<void()> body) {
    blockDim.x = (unsigned)threads;
    kernel = body;
    for (long long b = 0; b < blocks; ++b) {
        blockIdx.x = (unsigned)(backwards ? blocks - 1 - b : b);
        if (synchronizes) {
            run_block((unsigned)threads);
            continue;
        }
        for (long long t = 0; t < threads; ++t) {
            threadIdx.x = (unsigned)(backwards ? threads - 1 - t : t);
            kernel();
        }
    }
}

}  // namespace host

extern "C" void run_backwards(int whether) { host::backwards = whether; }

static void __syncthreads() { host::wait(host::block); }

template <typename T>
static T __shfl_xor_sync(unsigned, T value, int lanes) {
    unsigned mine = threadIdx.x;
    host::Barrier& warp = host::warps[mine / 32];
    host::slots[mine] = value;
    host::wait(warp);
    T other = (T)host::slots[mine ^ lanes];
    host::wait(warp);
    return other;
}
