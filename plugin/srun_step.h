// SPDX-License-Identifier: GPL-3.0-or-later
//
// The plug-in's part inside of srun: an srun in a batch script's tree makes place for the stub; the real one, which the script's sckpt-run
// has started, reports to it (rpc/srun.h).
#pragma once

#include <cstdint>
#include <string>

namespace sckpt::plugin {

// Where this srun is part of a batch script that sckpt-run supervises, executes `stub` in its place and does not return. Before srun has
// opened anything. Returns in every other srun, and where the stub cannot be executed: then `problem` says why.
void become_stub(const std::string& stub, std::string& problem);

// In the real srun. The environment that its tasks inherit is cleaned; the descriptor stays open until srun ends.
void take_report_descriptor();
int component_count();    // that report_component() was called for
void report_component();  // once the options of the step, or of a component of a heterogeneous one, are known
// Before the tasks are started; waits until sckpt-run allows that, which takes as long as a dump of the script. `tasks`: of the first
// component.
void report_step(std::uint32_t job_id, std::uint32_t step_id, std::uint32_t tasks);

}  // namespace sckpt::plugin
