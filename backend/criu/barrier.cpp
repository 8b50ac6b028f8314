// SPDX-License-Identifier: GPL-3.0-or-later
#include "backend/criu/barrier.h"

#include <format>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace sckpt::criu {

namespace {

constexpr const char* kName = "barrier";
constexpr std::string_view kGo = "go";

Result<UniqueFd> make_socket() {
    UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (!fd) return fail_errno("make a socket");
    return fd;
}

Result<sockaddr_un> address_in(const std::string& directory) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = directory + "/" + kName;
    if (path.size() >= sizeof address.sun_path) return fail(Errc::internal, path + " is too long for a socket");
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    return address;
}

const sockaddr* plain(const sockaddr_un& address) { return reinterpret_cast<const sockaddr*>(&address); }

}  // namespace

// By a name under /proc: an address holds no long path.
Result<Barrier> Barrier::open(const std::string& directory) {
    SCKPT_ASSIGN(const UniqueFd at, open_file(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    SCKPT_ASSIGN(const sockaddr_un address, address_in(std::format("/proc/self/fd/{}", at.get())));
    SCKPT_ASSIGN(UniqueFd listener, make_socket());
    if (::bind(listener.get(), plain(address), sizeof address) != 0 || ::listen(listener.get(), 1) != 0)
        return fail_errno("make a socket in " + directory);
    return Barrier(std::move(listener));
}

Result<> Barrier::meet() {
    hook_.reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!hook_) return fail_errno("accept the hook's connection");
    return {};
}

Result<> Barrier::let_go() { return send_message(hook_.get(), kGo); }

void Barrier::give_up() {
    hook_.reset();
    listener_.reset();
}

Result<> wait_at_barrier(const std::string& directory, Deadline deadline) {
    SCKPT_ASSIGN(const sockaddr_un address, address_in(directory));
    SCKPT_ASSIGN(const UniqueFd driver, make_socket());
    if (::connect(driver.get(), plain(address), sizeof address) != 0) return fail(Errc::busy, "the dump was given up");
    SCKPT_TRY(wait_readable({driver.get()}, deadline));
    SCKPT_ASSIGN(const Received word, receive_message(driver.get(), 0));
    if (word.bytes != kGo) return fail(Errc::busy, "the dump was given up");
    return {};
}

}  // namespace sckpt::criu
