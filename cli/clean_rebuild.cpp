// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-clean rebuild-catalogue: has sckptctld take in what the manifests in the store tell.
#include <algorithm>
#include <format>

#include "cli/clean.h"
#include "cli/progress.h"

namespace sckpt::cli {

std::string render_rebuilt(const rpc::RebuildProgress& end) {
    std::string text = std::format("{} in the store: {} taken into the catalogue", counted(end.found(), "image"), end.imported());
    const std::uint64_t known = end.found() - std::min(end.found(), end.imported() + end.unusable());
    if (known > 0) text += std::format(", {} known already", known);
    if (end.unusable() > 0) text += std::format(", {} not usable: `sckpt-clean orphans` names their files", end.unusable());
    return text + "\n";
}

Result<Outcome> clean_rebuild(const Session& session) {
    rpc::RebuildProgress last;
    {
        ProgressLine line;
        SCKPT_TRY(session.follow("RebuildCatalogue", &Session::Stub::RebuildCatalogue, rpc::RebuildRequest{},
                                 [&](const rpc::RebuildProgress& progress) {
                                     last = progress;
                                     line.tick(std::format("{} images found, {} taken in{}{}", progress.found(),
                                                           progress.imported(), progress.doing().empty() ? "" : "; ",
                                                           progress.doing()));
                                 }));
    }
    if (!session.json()) return render_rebuilt(last);
    SCKPT_ASSIGN(const auto document, to_json(last));
    return json_text(document);
}

}  // namespace sckpt::cli
