// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-criu: the command line, and the answer.
#include <tuple>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "backend/criu/driver.h"
#include "common/fd.h"

namespace sckpt::criu {

namespace {

struct Arguments {
    Tree tree;
    std::int64_t deadline_ms = 0;
};

void add_common(CLI::App& verb, Arguments& arguments) {
    verb.add_option("--criu", arguments.tree.criu, "the criu program")->required();
    verb.add_option("--cache", arguments.tree.cache, "where criu keeps what it knows about the kernel")->required();
}

void add_tree(CLI::App& verb, Arguments& arguments) {
    add_common(verb, arguments);
    verb.add_option("--directory", arguments.tree.directory, "the image directory")->required();
    verb.add_option("--supervisor", arguments.tree.supervisor, "PID of sckpt-run")->required();
    verb.add_option("--uid", arguments.tree.uid, "the job's user")->required();
    verb.add_option("--deadline-ms", arguments.deadline_ms, "milliseconds from now")->required();
}

// JSON text is UTF-8, paths need not be: the text travels as paths do. What else is no UTF-8 is replaced.
Result<> report(const Result<nlohmann::json>& done) {
    nlohmann::json answer = done ? *done : nlohmann::json{{"error", errc_name(done.error().code)}, {"text", bytes_to_text(done.error().text)}};
    answer["ok"] = done.has_value();
    return write_all(kReportFd, answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void keep_descriptors_from_children() {
    for (int fd = kReportFd; fd < kStreamFds + 3; ++fd) std::ignore = ::fcntl(fd, F_SETFD, FD_CLOEXEC);  // those not passed: EBADF
}

// As long as this process lives, a new sckptd can see that the directory is in use.
Result<UniqueFd> lock_directory(const std::string& directory) {
    SCKPT_ASSIGN(UniqueFd fd, open_file(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return fail_errno("lock " + directory);
    UniqueFd high(::fcntl(fd.get(), F_DUPFD_CLOEXEC, kStreamFds + 3));  // the numbers below have a meaning
    if (!high) return fail_errno("lock " + directory);
    return high;
}

int run(int argc, char** argv) {
    CLI::App app("sckpt-criu dumps and restores process trees for sckptd; it is no command for users.");
    app.require_subcommand(1);
    Arguments arguments;
    CLI::App* const dump_verb = app.add_subcommand("dump", "dump the tree of a process");
    CLI::App* const restore_verb = app.add_subcommand("restore", "restore a tree");
    CLI::App* const probe_verb = app.add_subcommand("probe", "find out what works on this node");
    add_tree(*dump_verb, arguments);
    dump_verb->add_option("--root", arguments.tree.root, "PID of the tree's root")->required();
    dump_verb->add_option("--sibling", arguments.tree.siblings, "PIDs of other tasks in the same cgroup");
    dump_verb->add_option("--helper", arguments.tree.helpers, "PIDs of processes that work for the tree outside of it");
    dump_verb->add_flag("--hold", arguments.tree.hold, "the tree stays frozen until sckptd says go");
    add_tree(*restore_verb, arguments);
    add_common(*probe_verb, arguments);
    CLI11_PARSE(app, argc, argv);

    keep_descriptors_from_children();
    arguments.tree.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(arguments.deadline_ms);
    const auto lock = probe_verb->parsed() ? Result<UniqueFd>() : lock_directory(arguments.tree.directory);
    if (!lock) return report(std::unexpected(lock.error())) ? 1 : 2;
    const auto done = dump_verb->parsed()      ? dump(arguments.tree)
                      : restore_verb->parsed() ? restore(arguments.tree)
                                               : probe(arguments.tree.criu, arguments.tree.cache);
    return report(done) && done ? 0 : 1;
}

}  // namespace

}  // namespace sckpt::criu

int main(int argc, char** argv) { return sckpt::criu::run(argc, argv); }
