// SPDX-License-Identifier: GPL-3.0-or-later
//
// What sckpt-run and sckptd say to each other on the node: SOCK_SEQPACKET on config.node.socket, one plain struct a message.
// Plain structs, not protobuf: sckpt-run starts in front of every task, and every millisecond of its start is the user's.
// Both ends come from one installation; a version that differs is refused.
// Who may connect: anyone. What the peer says about itself is a claim; its uid and process are the kernel's word
// (SO_PEERCRED), and sckptctld checks that the job is that user's before anything is dumped or restored.
#pragma once

#include <cstdint>

namespace sckpt::local {

inline constexpr std::uint32_t kMagic = 0x73636b70;  // "sckp"
inline constexpr std::uint32_t kVersion = 3;
inline constexpr std::uint32_t kBatchStep = 0xfffffffb;  // SLURM_BATCH_SCRIPT of slurm.h: the batch script is the job-level image
inline constexpr int kTextSize = 1024;

enum class Kind : std::uint32_t {
    hello = 1,     // sckpt-run → sckptd, first message; descriptors: stdin, stdout, stderr, status end (see below)
                   // (the first three are /dev/null where nothing can be restored: at a first start and after a reconnect)
    started,       // sckpt-run → sckptd: the payload's root runs as `pid` (also after a reconnect); with its pidfd, not used yet
    launch,        // sckptd → sckpt-run: start the program yourself
    restoring,     // sckptd → sckpt-run: a restore is under way; wait on the status socket. `resume_from` is the checkpoint's number. With a
                   // descriptor, at offset 0, where the image has the state that an earlier sckpt-run gave with `held`. Before the tree runs:
                   // sckpt-run has to listen for the stubs by then
    refused,       // sckptd → sckpt-run: do not start; `text` says why. sckpt-run prints it and ends with kRefusedExitCode
    note,          // sckptd → sckpt-run: a line for the job's standard error
    hold,          // sckptd → sckpt-run: a dump is about to be made: start no srun, have the stubs let go, move no input. Answered by held,
                   // also while the hold lasts, with the state of that moment
    held,          // sckpt-run → sckptd: done, with a descriptor of the state (daemon/run_state.h) that belongs into the image
    go_on,         // sckptd → sckpt-run: the hold is over. A lost connection says the same
    ended,         // sckpt-run → sckptd: the payload has ended with `wait_status`; the last message
    finish,        // sckptd → sckpt-run: this rank had ended at the checkpoint: end likewise, with `wait_status`
};

struct Message {
    std::uint32_t magic = kMagic, version = kVersion;
    Kind kind{};
    std::uint32_t job_id = 0, step_id = 0, task_id = 0;  // task_id: the task's rank in its step (0 for the batch script)
    std::uint32_t step_key = 0;                          // of a step's task (rpc/task_name.h)
    std::uint32_t tasks = 1;                             // of its step
    std::uint32_t resume_from = 0;                       // a step's task: the checkpoint that it goes on from; 0: the step is new.
                                                         // restoring: the checkpoint
    std::uint32_t origin_job = 0, origin_key = 0;        // of a step that srun --ckpt-restart has started: whose checkpoint that is; 0, 0: its
                                                         // own job's
    std::uint32_t restart_count = 0;                     // SLURM_RESTART_COUNT, 0 at the first start
    std::int64_t interval_seconds = 0;                   // 0: manual; -1: the site's default
    std::int32_t max_restarts = -1;                      // -1: the site's default
    std::uint32_t reconnect = 0;                         // hello: 1 when the payload runs already (sckptd was restarted)
    std::int64_t pid = 0;                                // started
    std::int32_t wait_status = 0;                        // ended, finish: as waitpid(2) gave it
    char text[kTextSize] = {};                           // refused, note; NUL-terminated
};

// Exit code of sckpt-run when the job may not start (EX_TEMPFAIL of sysexits.h); sckptctld holds or requeues the job.
inline constexpr int kRefusedExitCode = 75;

// The status socket (SOCK_SEQPACKET pair made by sckpt-run, its other end handed to sckptd with hello): the init process of a
// restored tree writes here, and lives on without sckptd. End of file before `restored` means that the restore was given up.
struct Status {
    enum class What : std::uint32_t { restored = 1, exited } what{};
    std::int32_t wait_status = 0;  // exited: as waitpid(2) gave it. With `restored` a pidfd of the tree's root comes along
};

}  // namespace sckpt::local
