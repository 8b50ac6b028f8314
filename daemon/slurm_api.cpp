// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/slurm_api.h"

#include <pwd.h>
#include <slurm/slurm.h>
#include <slurm/slurm_errno.h>
#include <unistd.h>
#include <cerrno>
#include <ctime>
#include <map>
#include <memory>
#include <span>

namespace sckpt {
namespace {

template <auto Free>
struct Freer {
    template <class T>
    void operator()(T* p) const {
        Free(p);
    }
};
using JobMessage = std::unique_ptr<job_info_msg_t, Freer<slurm_free_job_info_msg>>;
using NodeMessage = std::unique_ptr<node_info_msg_t, Freer<slurm_free_node_info_msg>>;
using ConfMessage = std::unique_ptr<slurm_conf_t, Freer<slurm_free_ctl_conf>>;

std::unexpected<Error> fail_slurm(std::string_view doing, int err) {
    Errc code = Errc::io;
    switch (err) {
        case ESLURM_INVALID_JOB_ID:
        case ESLURM_INVALID_NODE_NAME: code = Errc::not_found; break;
        case ESLURM_ACCESS_DENIED:
        case ESLURM_USER_ID_MISSING: code = Errc::denied; break;
        case ESLURM_DISABLED: code = Errc::unsupported; break;
        case ESLURM_JOB_PENDING: code = Errc::exists; break;
        case ESLURM_TRANSITION_STATE_NO_UPDATE: code = Errc::busy; break;
        case SLURM_COMMUNICATIONS_CONNECTION_ERROR:
        case SLURMCTLD_COMMUNICATIONS_CONNECTION_ERROR: code = Errc::unavailable; break;
        default: break;
    }
    return fail(code, std::string(doing) + ": " + slurm_strerror(err));
}

SlurmJobState base_state(std::uint32_t state) {
    switch (state & JOB_STATE_BASE) {
        case JOB_PENDING: return SlurmJobState::pending;
        case JOB_RUNNING: return SlurmJobState::running;
        case JOB_SUSPENDED: return SlurmJobState::suspended;
        case JOB_COMPLETE: return SlurmJobState::completed;
        case JOB_CANCELLED: return SlurmJobState::cancelled;
        case JOB_FAILED: return SlurmJobState::failed;
        case JOB_TIMEOUT:
        case JOB_DEADLINE: return SlurmJobState::timed_out;
        case JOB_NODE_FAIL:
        case JOB_BOOT_FAIL: return SlurmJobState::node_fail;
        case JOB_OOM: return SlurmJobState::out_of_memory;
        default: return SlurmJobState::other;
    }
}

std::string state_name(std::uint32_t state) {
    static constexpr const char* kNames[] = {"PENDING", "RUNNING",   "SUSPENDED", "COMPLETED", "CANCELLED", "FAILED",
                                             "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE",  "OUT_OF_MEMORY"};
    const std::uint32_t base = state & JOB_STATE_BASE;
    if (state & JOB_COMPLETING) return "COMPLETING";
    return base < std::size(kNames) ? kNames[base] : "UNKNOWN";
}

std::vector<std::string> expand_hosts(const char* hosts) {
    std::vector<std::string> names;
    if (hosts == nullptr || *hosts == '\0') return names;
    hostlist_t* list = slurm_hostlist_create(hosts);
    if (list == nullptr) return names;
    while (char* name = slurm_hostlist_shift(list)) {
        names.emplace_back(name);
        free(name);  // documented as malloc'ed, unlike the rest of the API
    }
    slurm_hostlist_destroy(list);
    return names;
}

SlurmJob from_info(const slurm_job_info_t& info) {
    SlurmJob job;
    job.job_id = info.job_id;
    job.uid = info.user_id;
    job.state = base_state(info.job_state);
    job.state_name = state_name(info.job_state);
    job.completing = (info.job_state & JOB_COMPLETING) != 0;
    job.batch = info.batch_flag != 0;
    job.may_requeue = info.requeue != 0;
    job.held = info.priority == 0;
    job.restart_count = info.restart_cnt;
    job.submit_time = info.submit_time;
    job.begin_time = info.start_time;  // of a pending job: the time before which it will not start
    job.exit_status = static_cast<int>(info.exit_code);
    if (info.array_job_id != 0 && info.array_task_id != NO_VAL) {
        job.array_job_id = info.array_job_id;
        job.array_task = info.array_task_id;
    }
    job.account = info.account != nullptr ? info.account : "";
    job.user = info.user_name != nullptr ? info.user_name : "";
    job.batch_host = info.batch_host != nullptr ? info.batch_host : "";
    job.het_job_id = info.het_job_id;
    job.nodes = NodeNames(expand_hosts(info.nodes));
    return job;
}

void add_nodes(const SlurmJob& component, SlurmJob& first) {
    first.nodes.add(component.nodes);
}

Result<> update_job(std::uint32_t job_id, std::string_view doing, auto&& change) {
    job_desc_msg_t description;
    slurm_init_job_desc_msg(&description);
    description.job_id = job_id;
    change(description);
    if (slurm_update_job(&description) != SLURM_SUCCESS) return fail_slurm(doing, errno);
    return {};
}

Result<NodeMessage> load_nodes() {
    node_info_msg_t* message = nullptr;
    if (slurm_load_node(0, &message, SHOW_ALL) != SLURM_SUCCESS) return fail_slurm("asking slurmctld for its nodes", errno);
    return NodeMessage(message);
}

// The NodeName of the record that is of this host, "": none is.
std::string name_of_host(const node_info_msg_t& nodes, const std::string& full, const std::string& shortened) {
    for (std::uint32_t i = 0; i < nodes.record_count; ++i) {
        const node_info_t& info = nodes.node_array[i];
        if (info.node_hostname == nullptr || info.name == nullptr) continue;
        if (full == info.node_hostname || shortened == info.node_hostname) return info.name;
    }
    return "";
}

Result<ConfMessage> load_conf() {
    slurm_conf_t* conf = nullptr;
    if (slurm_load_ctl_conf(0, &conf) != SLURM_SUCCESS) return fail_slurm("asking slurmctld for its configuration", errno);
    return ConfMessage(conf);
}

}  // namespace

NodeNames::NodeNames(std::vector<std::string> names) {
    std::ranges::sort(names);
    names_ = std::make_shared<const std::vector<std::string>>(std::move(names));
}

void NodeNames::add(const NodeNames& others) {
    std::vector<std::string> all;
    if (names_) all = *names_;
    if (others.names_) all.insert(all.end(), others.names_->begin(), others.names_->end());
    *this = NodeNames(std::move(all));
}

void slurm_start() { slurm_init(nullptr); }

Result<std::string> slurm_version() {
    SCKPT_ASSIGN(const ConfMessage conf, load_conf());
    return std::string(conf->version != nullptr ? conf->version : "unknown");
}

Result<std::string> slurm_cluster_name() {
    SCKPT_ASSIGN(const ConfMessage conf, load_conf());
    return std::string(conf->cluster_name != nullptr ? conf->cluster_name : "");
}

Result<std::vector<SlurmJob>> slurm_jobs() {
    job_info_msg_t* raw = nullptr;
    if (slurm_load_jobs(0, &raw, SHOW_ALL) != SLURM_SUCCESS) return fail_slurm("asking slurmctld for its jobs", errno);
    const JobMessage message(raw);
    std::vector<SlurmJob> jobs;
    jobs.reserve(message->record_count);
    std::map<std::uint32_t, std::size_t> firsts;  // of heterogeneous jobs: their places
    for (std::uint32_t i = 0; i < message->record_count; ++i) {
        jobs.push_back(from_info(message->job_array[i]));
        if (jobs.back().het_job_id == jobs.back().job_id) firsts[jobs.back().job_id] = jobs.size() - 1;
    }
    for (const SlurmJob& job : jobs)
        if (const auto first = firsts.find(job.het_job_id); first != firsts.end() && job.job_id != job.het_job_id) add_nodes(job, jobs[first->second]);
    return jobs;
}

namespace {

// `read` gets the job's record, and the others that came with it: an array's number brings the records of all its tasks, that of a heterogeneous
// job those of all its components.
template <class Read>
auto with_job(std::uint32_t job_id, const Read& read)
    -> Result<decltype(read(std::declval<const slurm_job_info_t&>(), std::declval<std::span<const slurm_job_info_t>>()))> {
    const std::string doing = "asking slurmctld for job " + std::to_string(job_id);
    job_info_msg_t* raw = nullptr;
    if (slurm_load_job(&raw, job_id, SHOW_ALL) != SLURM_SUCCESS) return fail_slurm(doing, errno);
    const JobMessage message(raw);
    for (std::uint32_t i = 0; i < message->record_count; ++i)
        if (message->job_array[i].job_id == job_id) return read(message->job_array[i], {message->job_array, message->record_count});
    return fail(Errc::not_found, doing + ": no such job");
}

// As Slurm's commands write it: JOB, or ARRAY_TASK.
Result<std::string> job_name(std::uint32_t job_id) {
    return with_job(job_id, [](const slurm_job_info_t& info, std::span<const slurm_job_info_t>) {
        if (info.array_job_id == 0 || info.array_task_id == NO_VAL) return std::to_string(info.job_id);
        return std::to_string(info.array_job_id) + "_" + std::to_string(info.array_task_id);
    });
}

}  // namespace

Result<SlurmJob> slurm_job(std::uint32_t job_id) {
    SCKPT_ASSIGN(SlurmJob job, with_job(job_id, [](const slurm_job_info_t& info, std::span<const slurm_job_info_t> all) {
                     SlurmJob first = from_info(info);
                     for (const slurm_job_info_t& other : all)
                         if (other.job_id != info.job_id && other.het_job_id != 0 && other.het_job_id == info.job_id) add_nodes(from_info(other), first);
                     return first;
                 }));
    if (job.user.empty()) job.user = user_name(job.uid);
    return job;
}

Result<std::vector<SlurmJob>> slurm_array(std::uint32_t array_job_id) {
    job_info_msg_t* raw = nullptr;
    std::vector<SlurmJob> tasks;
    if (slurm_load_job(&raw, array_job_id, SHOW_ALL) != SLURM_SUCCESS) {
        if (errno == ESLURM_INVALID_JOB_ID) return tasks;
        return fail_slurm("asking slurmctld for job " + std::to_string(array_job_id), errno);
    }
    const JobMessage message(raw);
    for (std::uint32_t i = 0; i < message->record_count; ++i) {
        SlurmJob job = from_info(message->job_array[i]);
        if (job.array_task && job.array_job_id == array_job_id) tasks.push_back(std::move(job));
    }
    return tasks;
}

std::string user_name(uid_t uid) {
    char buffer[4096];
    passwd entry{};
    passwd* found = nullptr;
    if (getpwuid_r(uid, &entry, buffer, sizeof buffer, &found) == 0 && found != nullptr) return found->pw_name;
    return std::to_string(uid);
}

Result<> slurm_requeue_job(std::uint32_t job_id, bool hold) {
    // One task of an array has the array's own number, which alone would mean all of its tasks.
    SCKPT_ASSIGN(std::string id, job_name(job_id));
    job_array_resp_msg_t* responses = nullptr;
    int rc = slurm_requeue2(id.data(), hold ? JOB_REQUEUE_HOLD : 0, &responses);
    if (rc != SLURM_SUCCESS) rc = errno;
    if (responses != nullptr) {
        for (std::uint32_t i = 0; rc == SLURM_SUCCESS && i < responses->job_array_count; ++i)
            rc = static_cast<int>(responses->error_code[i]);
        slurm_free_job_array_resp(responses);
    }
    if (rc != SLURM_SUCCESS) return fail_slurm("requeueing job " + id, rc);
    return {};
}

Result<> slurm_end_step(std::uint32_t job_id, std::uint32_t step_id) {
    if (slurm_terminate_job_step(job_id, step_id) == SLURM_SUCCESS) return {};
    return fail_slurm("ending step " + std::to_string(job_id) + "." + std::to_string(step_id), errno);
}

Result<> slurm_start_now(std::uint32_t job_id) {
    return update_job(job_id, "setting the begin time of job " + std::to_string(job_id),
                      [](job_desc_msg_t& d) { d.begin_time = time(nullptr); });
}

Result<> slurm_set_admin_comment(std::uint32_t job_id, const std::string& text) {
    std::string copy = text;
    return update_job(job_id, "setting the admin comment of job " + std::to_string(job_id),
                      [&](job_desc_msg_t& d) { d.admin_comment = copy.data(); });
}

Result<std::map<std::string, std::string>> slurm_node_addresses() {
    SCKPT_ASSIGN(const NodeMessage nodes, load_nodes());
    std::map<std::string, std::string> addresses;
    for (std::uint32_t i = 0; i < nodes->record_count; ++i) {
        const node_info_t& info = nodes->node_array[i];
        if (info.name != nullptr) addresses.emplace(info.name, info.node_addr != nullptr ? info.node_addr : info.name);
    }
    return addresses;
}

Result<uid_t> slurm_user_id() {
    SCKPT_ASSIGN(const ConfMessage conf, load_conf());
    return static_cast<uid_t>(conf->slurm_user_id);
}

Result<bool> slurm_appends_output() {
    SCKPT_ASSIGN(const ConfMessage conf, load_conf());
    return conf->job_file_append != 0;
}

Result<std::string> slurm_local_node_name() {
    char host[256] = {};
    if (gethostname(host, sizeof host - 1) != 0) return fail_errno("asking for the host name");
    const std::string full = host;
    const std::string shortened = full.substr(0, full.find('.'));
    // Most nodes have their host's name, and thousands of them may ask at the same moment: one record is asked for first, not all.
    node_info_msg_t* single = nullptr;
    std::string same = shortened;
    if (slurm_load_node_single(&single, same.data(), SHOW_ALL) == SLURM_SUCCESS) {
        const NodeMessage node(single);
        if (std::string name = name_of_host(*node, full, shortened); !name.empty()) return name;
    }
    SCKPT_ASSIGN(const NodeMessage nodes, load_nodes());
    if (std::string name = name_of_host(*nodes, full, shortened); !name.empty()) return name;
    return fail(Errc::not_found, "this host (" + full + ") is no node of Slurm's configuration");
}

}  // namespace sckpt
