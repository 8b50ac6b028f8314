// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the tests of the image store share: a directory that goes away, and small files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <format>
#include <fstream>
#include <sstream>
#include <string>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

namespace sckpt::test {

class TempDir {
   public:
    TempDir() {
        char name[] = "/tmp/sckpt-store-XXXXXX";
        REQUIRE(::mkdtemp(name) != nullptr);
        path_ = name;
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }

   private:
    std::string path_;
};

// A forked child that is killed and reaped at the end of the test, whatever happened.
class Child {
   public:
    template <class F>
    explicit Child(F body) : pid_(::fork()) {
        if (pid_ == 0) ::_exit(body());
        REQUIRE(pid_ > 0);
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() { kill_and_reap(); }
    void kill_and_reap() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        pid_ = -1;
    }
    int exit_code() {  // -1: it did not exit
        int status = 0;
        const pid_t reaped = ::waitpid(pid_, &status, 0);
        pid_ = -1;
        return reaped > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

   private:
    pid_t pid_;
};

inline void write_text(const std::string& path, const std::string& bytes) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file << bytes;
    file.close();
    REQUIRE(file.good());
}

inline std::string read_text(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    REQUIRE(file.good());
    std::ostringstream bytes;
    bytes << file.rdbuf();
    return bytes.str();
}

// Bytes without a pattern that a copy in the wrong order could hide behind.
inline std::string noise(std::size_t size, std::uint64_t seed) {
    std::string bytes(size, '\0');
    for (char& byte : bytes) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        byte = static_cast<char>(seed >> 56);
    }
    return bytes;
}

}  // namespace sckpt::test
