// SPDX-License-Identifier: GPL-3.0-or-later
//
// sbatch merges options from the command line, SBATCH_… variables and #SBATCH lines. Reading those again here would be a second,
// worse parser. Instead its own result is read: sbatch, and srun too, exports its option record `opt`, and Slurm's library the accessor
// that cli_filter plug-ins use, which takes names and returns text, so the record stays opaque. slurm_conf is a public structure of
// slurm.h, and Slurm loads a plug-in of its own version only. All are looked up at run time: what is missing means no warning.
#include "plugin/submission.h"

#include <cerrno>
#include <string_view>

#include <dlfcn.h>

#include <slurm/slurm.h>

namespace sckpt::plugin {

std::string option_text(const char* name) {
    using Get = char* (*)(void*, const char*);
    const auto get = reinterpret_cast<Get>(::dlsym(RTLD_DEFAULT, "slurm_option_get"));
    void* record = ::dlsym(RTLD_DEFAULT, "opt");
    char* text = get && record ? get(record, name) : nullptr;
    return text ? text : "";  // the text is left to the program: its allocator is not ours, and it asks once or twice in its life
}

std::vector<std::string> submission_warnings() {
    if (std::string_view(program_invocation_short_name) != "sbatch") return {};
    const auto* conf = static_cast<const slurm_conf_t*>(::dlsym(RTLD_DEFAULT, "slurm_conf"));
    Submission submission{option_text("open-mode"), option_text("requeue")};
    if (submission.requeue.empty()) return {};  // always a word, had sbatch answered
    submission.append_by_default = !conf || conf->job_file_append != 0;
    submission.requeue_by_default = !conf || conf->job_requeue != 0;
    return judge_submission(submission);
}

}  // namespace sckpt::plugin
