// SPDX-License-Identifier: GPL-3.0-or-later
//
// The steps of a batch script, in its sckpt-run: serves the stubs that stand in for srun in the script's tree (rpc/srun.h), and runs the
// real ones as children, outside of that tree. It never starts a step twice: each has a key that its stub remembers, across restarts. One
// thread, nothing waits: fd() is readable when there is something to serve(), and SIGCHLD asks for reap().
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/fd.h"
#include "daemon/run_state.h"
#include "daemon/sckpt_run_options.h"
#include "rpc/srun.h"

namespace sckpt {

class StepService {
   public:
    explicit StepService(const RunOptions& options);
    StepService(StepService&&) = delete;

    // Listens. Without the directory, which sckptd makes, there is no service and every srun runs as it is. False: errno.
    bool open();
    void close();
    bool serving() const { return serving_; }  // the script relies on it
    bool listening() const { return static_cast<bool>(listener_); }
    // Before the script runs: goes on from what an earlier sckpt-run of this job knew at checkpoint `number`. An empty state: from the
    // beginning.
    void resume(const RunState& state, std::uint32_t number);

    const std::string& path() const { return path_; }  // of the socket
    int fd() const { return events_.get(); }
    void serve();
    void reap();

    // A dump comes: starts no srun, lets none that has got its step start the tasks, has the stubs let go of their connections. quiet()
    // says when that is done.
    void hold();
    bool quiet() const;
    void go_on();
    RunState state() const;

   private:
    struct Step : RunState::Step {  // `srun` is 0 when no srun of it runs
        bool started = false;       // by this sckpt-run
        UniqueFd stub;              // pidfd
        int connection = -1;        // to the stub
        UniqueFd report;            // from srun's plug-in
        std::string asking;         // its report of a step that has not been answered yet
        bool reads_input = false, granted = false, fed = false;
        bool abandoned = false;  // its stub has ended
    };
    struct Connection {
        UniqueFd socket, stub;               // the latter: pidfd, until its step has it
        std::uint32_t key = srun::kNewStep;  // kNewStep until `run`
    };
    enum class Source : std::uint32_t { listener, connection, stub, report };

    bool watch(int fd, Source source, std::uint32_t value);
    void on_listener();
    void on_connection(int fd);
    void on_message(Connection& connection, const srun::Message& message, const std::vector<UniqueFd>& fds);
    void on_run(Connection& connection, std::uint32_t key, const std::vector<UniqueFd>& fds);
    void on_stub_end(std::uint32_t key);
    void start(Step& step, const std::vector<UniqueFd>& fds);
    void on_report(Step& step);
    void grant(Step& step);
    void on_srun_end(Step& step, int wait_status);
    void offer_input(Step& step);
    void send(int connection, srun::Message message);
    void disconnect(int connection);
    bool is_ours(std::uint32_t job_id) const;
    Step* find(std::uint32_t key);

    const RunOptions& options_;
    const std::string path_;
    UniqueFd events_, listener_;
    bool serving_ = false, held_ = false;
    std::uint32_t next_key_ = 0, resume_from_ = 0;
    std::map<std::uint32_t, Step> steps_;    // by key
    std::map<int, Connection> connections_;  // by descriptor
};

}  // namespace sckpt
