// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/srun_environment.h"

#include <algorithm>
#include <array>
#include <format>
#include <string_view>

#include "rpc/srun.h"

namespace sckpt {

namespace {

// What Slurm says in them is of one allocation, and an srun that believes old ones asks for nodes that the job has no more.
constexpr std::array<std::string_view, 18> kOfAllocation = {"SLURM_JOB_NODELIST",
                                                            "SLURM_NODELIST",
                                                            "SLURM_JOB_NUM_NODES",
                                                            "SLURM_NNODES",
                                                            "SLURM_TASKS_PER_NODE",
                                                            "SLURM_JOB_CPUS_PER_NODE",
                                                            "SLURM_CPUS_ON_NODE",
                                                            "SLURM_JOB_GPUS",
                                                            "SLURM_GPUS_ON_NODE",
                                                            "SLURMD_NODENAME",
                                                            "SLURM_NODEID",
                                                            "SLURM_TOPOLOGY_ADDR",
                                                            "SLURM_TOPOLOGY_ADDR_PATTERN",
                                                            "SLURM_NODE_ALIASES",
                                                            "SLURM_LAUNCH_NODE_IPADDR",
                                                            "SLURM_JOB_START_TIME",
                                                            "SLURM_JOB_END_TIME",
                                                            "SLURM_RESTART_COUNT"};

std::string_view name_of(std::string_view variable) { return variable.substr(0, variable.find('=')); }

// Also "SLURM_JOB_NODELIST_HET_GROUP_1", of one component of a heterogeneous job.
bool is_of_allocation(std::string_view variable) {
    std::string_view name = name_of(variable);
    name = name.substr(0, name.find("_HET_GROUP_"));
    return std::ranges::contains(kOfAllocation, name);
}

bool is_given(const std::vector<std::string>& environment, std::string_view name) {
    return std::ranges::any_of(environment, [name](const std::string& variable) { return name_of(variable) == name; });
}

}  // namespace

std::vector<std::string> srun_environment(std::vector<std::string> stub, const char* const* current, const SrunStep& step) {
    std::vector<std::string> result = std::move(stub);
    std::erase_if(result, [&](const std::string& variable) {
        const std::string_view name = name_of(variable);
        return name == srun::kSupervisorVariable || name == srun::kStepVariable || (current && is_of_allocation(variable));
    });
    for (const char* const* variable = current; variable && *variable; ++variable)
        if (is_of_allocation(*variable)) result.emplace_back(*variable);
    // its output files hold what the step has written up to the checkpoint
    if (step.resume_from > 0 && !is_given(result, "SLURM_OPEN_MODE")) result.emplace_back("SLURM_OPEN_MODE=a");
    result.push_back(std::format("{}={}:{}:{}", srun::kStepVariable, step.job_id, step.key, step.resume_from));
    result.push_back(std::format("{}={}", srun::kReportVariable, step.report));
    return result;
}

}  // namespace sckpt
