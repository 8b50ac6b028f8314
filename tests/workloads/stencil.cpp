// SPDX-License-Identifier: GPL-3.0-or-later
//
// Workload: a dense numeric code, heat that spreads through a cube of EDGE^3 doubles (EDGE 512: 1 GiB), as such codes are at a checkpoint.
//   stencil steps EDGE PERCENT   in the working directory, for N = 1, 2, …: waits for the file "go-N", updates the next PERCENT of the planes,
//                                lets the heap grow a little, makes "done-N"; before N = 1, with the field set up, makes "done-0"
//   stencil compute EDGE FILE    updates plane after plane for ever, and appends to FILE after each: time in seconds, of CLOCK_MONOTONIC
// A quarter of the field still has its first value, the rest is smooth with a little noise: what doubles of a running simulation look like.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

class Field {
   public:
    explicit Field(std::size_t edge) : edge_(edge), values_(edge * edge * edge, 293.15) {
        std::vector<double> wave(edge);
        for (std::size_t i = 0; i < edge; ++i) wave[i] = std::sin(0.02 * static_cast<double>(i));
        std::uint64_t noise = 88172645463325252ULL;
        for (std::size_t z = 0; z < edge * 3 / 4; ++z)
            for (std::size_t y = 0; y < edge; ++y)
                for (std::size_t x = 0; x < edge; ++x) {
                    noise ^= noise << 13, noise ^= noise >> 7, noise ^= noise << 17;
                    values_[index(z, y, x)] = 293.15 + 40 * wave[x] * wave[y] * wave[z] + static_cast<double>(noise >> 40) * 1e-8;
                }
    }

    std::size_t edge() const { return edge_; }

    void update_plane(std::size_t z) {
        const std::size_t below = (z + edge_ - 1) % edge_, above = (z + 1) % edge_;
        for (std::size_t y = 1; y + 1 < edge_; ++y)
            for (std::size_t x = 1; x + 1 < edge_; ++x) {
                double& here = values_[index(z, y, x)];
                const double around = values_[index(below, y, x)] + values_[index(above, y, x)] + values_[index(z, y - 1, x)] +
                                      values_[index(z, y + 1, x)] + values_[index(z, y, x - 1)] + values_[index(z, y, x + 1)];
                here += 0.1 * (around - 6 * here) + 1e-9;
            }
    }

   private:
    std::size_t index(std::size_t z, std::size_t y, std::size_t x) const { return (z * edge_ + y) * edge_ + x; }

    std::size_t edge_;
    std::vector<double> values_;
};

void wait_for(const std::string& name) {
    while (access(name.c_str(), F_OK) != 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

void make(const std::string& name) {
    const int fd = open(name.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) std::exit(3);
    close(fd);
}

// As a program does that keeps a little more of everything with each step: small blocks of the heap, below the field in the image.
void grow_heap(int step) {
    for (int i = 0; i < 100 + step % 2 * 74; ++i) {
        void* const block = std::malloc(4096);
        if (block == nullptr) std::exit(3);
        std::memset(block, step + i, 4096);
    }
}

int steps(std::size_t edge, std::size_t percent) {
    Field field(edge);
    make("done-0");
    std::size_t plane = 0;
    for (int step = 1;; ++step) {
        wait_for("go-" + std::to_string(step));
        grow_heap(step);
        for (std::size_t n = 0; n < edge * percent / 100; ++n) field.update_plane(plane++ % edge);
        make("done-" + std::to_string(step));
    }
}

int compute(std::size_t edge, const char* name) {
    std::FILE* const times = std::fopen(name, "a");
    if (times == nullptr) return 3;
    Field field(edge);
    for (std::size_t plane = 0;; ++plane) {
        field.update_plane(plane % edge);
        const std::chrono::duration<double> now = std::chrono::steady_clock::now().time_since_epoch();
        std::fprintf(times, "%.6f\n", now.count());
        std::fflush(times);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const std::size_t edge = argc == 4 ? std::strtoul(argv[2], nullptr, 10) : 0;
    if (edge >= 8 && std::string(argv[1]) == "steps") return steps(edge, std::strtoul(argv[3], nullptr, 10));
    if (edge >= 8 && std::string(argv[1]) == "compute") return compute(edge, argv[3]);
    std::fprintf(stderr, "usage: stencil steps EDGE PERCENT | stencil compute EDGE FILE\n");
    return 2;
}
