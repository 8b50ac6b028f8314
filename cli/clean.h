// SPDX-License-Identifier: GPL-3.0-or-later
//
// The verbs of sckpt-clean, one file each. A verb answers what goes to standard output, and the exit code; progress goes to
// standard error. The render functions have no other input or effect than what is in their arguments.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/program.h"
#include "image_store/store_id.h"
#include "rpc/sckpt.pb.h"

namespace sckpt::cli {

// A limit of retention that the command line may set in place of the configuration's; bounds and forms are those of sckpt.yaml.
struct RuleOption {
    const char* option;
    const char* type;
    const char* help;
    Result<> (*set)(rpc::RetentionRules& rules, std::string_view text);
};
std::span<const RuleOption> rule_options();

Result<Outcome> clean_report(const Session& session, const rpc::RetentionRules& rules);
Result<Outcome> clean_run(const Session& session, const rpc::RetentionRules& rules, bool dry_run);
Result<Outcome> clean_orphans(const Session& session, bool remove);
struct CheckOptions {
    std::uint32_t job = 0;  // 0: all
    bool repair = false, quick = false;
};
Result<Outcome> clean_check(const Session& session, const CheckOptions& options);
Result<Outcome> clean_rebuild(const Session& session);
Result<Outcome> clean_make_key(const Options& options, bool rotate);  // local: asks nobody
Result<Outcome> clean_make_store(const Options& options);             // on this node, as the service user

std::string render_report(const rpc::ReportReply& reply, const View& view);
std::string render_removals(const rpc::ReportReply& reply, const View& view);  // run --dry-run
std::string render_cleaned(const rpc::CleanProgress& end);
std::string render_orphans(const rpc::OrphansReply& reply, bool removed);
std::string render_rebuilt(const rpc::RebuildProgress& end);
std::string render_made_store(const MadeStore& made, const std::string& path);
std::string render_key(const std::string& path, const std::string& id, bool rotated);

// What a check has told so far.
class CheckState {
   public:
    // Answers a line about what was found now; "" when all is well.
    std::string update(const rpc::CheckProgress& progress);
    std::string progress() const;
    bool done() const { return last_.done(); }
    bool faults() const { return !bad_.empty() || !unreadable_.empty(); }
    std::string render(const CheckOptions& options) const;
    nlohmann::json json() const;

   private:
    struct Bad {
        std::string name;  // "12.3"
        rpc::CheckProgress found;
    };
    rpc::CheckProgress last_;
    std::vector<Bad> bad_, unreadable_;
    std::vector<std::string> notes_;
};

}  // namespace sckpt::cli
