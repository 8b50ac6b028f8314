// SPDX-License-Identifier: GPL-3.0-or-later
//
// What sckpt-srun, the stub that stands in for srun in a batch script's tree, and the script's sckpt-run, which runs the real srun outside
// of it, say to each other: SOCK_SEQPACKET on the path in SCKPT_SUPERVISOR, one plain struct a message. Both run as the job's user; the
// socket lies in a directory that is his alone. A stub is part of the job-level image and holds no connection while that is made: told to
// let go, it closes its end, sleeps, and comes back; it cannot tell a restart from a pause, and need not: its `run` says what it is, and
// the answer says what became of its srun. And what the plug-in in the real srun reports to sckpt-run, see kReportVariable.
#pragma once

#include <cstdint>
#include <string>

namespace sckpt::srun {

inline constexpr std::uint32_t kMagic = 0x73636b73;  // "scks"
inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::uint32_t kNewStep = 0xffffffff;
inline constexpr const char* kSupervisorVariable = "SCKPT_SUPERVISOR";

enum class Kind : std::uint32_t {
    run = 1,  // stub → supervisor, first message; `key`: kNewStep, or the key that it was given before. With descriptors, kRunFds and the
              // others that srun has inherited. Not answered while a dump is made: then it is asked again
    accepted,  // supervisor → stub: its srun has `key`; `fresh` tells whether it was started just now, with these descriptors. From here on
               // the stub knows its key
    feed,          // supervisor → stub: srun reads its standard input: relay it
    signal,        // stub → supervisor: `value` is a signal that the stub has got, for srun
    let_go,        // supervisor → stub: a dump comes: relay nothing, close the connection, come back until you are let in
    exited,        // supervisor → stub: srun has ended; `value` is its wait status. The last message
    unreplayable,  // stub → supervisor: it has relayed more of its standard input than it keeps: no restart could give srun all of it again
};

// With `run`: standard input, output and error (/dev/null for one that was closed), the working directory, the launch (a memfd,
// daemon/srun_launch.h). A stub that relays its standard input passes the read end of a new pipe each time; it is used only where srun is
// started.
inline constexpr int kRunFds = 5;

struct Message {
    std::uint32_t magic = kMagic, version = kVersion;
    Kind kind{};
    std::uint32_t key = kNewStep;
    std::int32_t value = 0;
    std::uint32_t fresh = 0;
};

// DIR/run/UID/job-JOBID.sock, where DIR is sckptd's socket's. sckptd makes the directory, and the name tells a job's own supervisor from
// one that the environment has been carried over from.
inline std::string supervisor_socket_name(std::uint32_t job_id) { return "job-" + std::to_string(job_id) + ".sock"; }

// Number, in srun, of a SOCK_SEQPACKET socket that the plug-in reports to in words:
//   input              srun will read its standard input
//   step JOB ID TASKS  Slurm has given srun the step ID of job JOB, with so many tasks. None of them is started before sckpt-run answers
//                      with a packet, which it does not while a dump is made: so at a dump it is certain of each step whether its tasks exist
inline constexpr const char* kReportVariable = "SCKPT_STEP_REPORT";

// The option by which the plug-in tells each task of a step what it is, and the variable that srun reads it from. Its value is "JOB:KEY:N":
// the batch script's job, the step's key, and the checkpoint to go on from (0: none).
inline constexpr const char* kStepOption = "ckpt-step";
inline constexpr const char* kStepVariable = "SLURM_SPANK__SLURM_SPANK_OPTION_sckpt_ckpt_step";
inline constexpr const char* kStepVariableOnNode = "_SLURM_SPANK_OPTION_sckpt_ckpt_step";  // srun sends it along; tasks would inherit it

// What the plug-in in srun has found for --ckpt-restart, with the number of the checkpoint, for its tasks: all go on from the same one. srun sends
// on what begins with SLURM_, whatever --export says.
inline constexpr const char* kOriginVariable = "SLURM_SCKPT_RESTART";

}  // namespace sckpt::srun
