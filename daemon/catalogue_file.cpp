// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/catalogue_file.h"

#include <cstdio>
#include <filesystem>
#include <format>

#include "common/fd.h"
#include "common/log.h"

namespace sckpt {
namespace {

// The database first: SQLite takes no log for one that is not there.
Result<> put_aside(const std::string& path, const std::string& aside) {
    for (const char* suffix : {"", "-wal", "-shm"})
        if (std::rename((path + suffix).c_str(), (aside + suffix).c_str()) != 0 && errno != ENOENT)
            return fail_errno(std::format("putting {}{} aside", path, suffix));
    return fsync_directory(std::filesystem::path(path).parent_path().string());
}

}  // namespace

Result<OpenedCatalogue> open_catalogue(const std::string& path, std::int64_t now) {
    auto opened = Catalogue::open(path);
    if (opened) return OpenedCatalogue{std::move(*opened), ""};
    if (opened.error().code != Errc::corrupt) return std::unexpected(opened.error());
    const std::string aside = std::format("{}.damaged-{}", path, now);
    log_error("the catalogue is damaged: {}", opened.error().text);
    SCKPT_TRY(put_aside(path, aside));
    SCKPT_ASSIGN(Catalogue fresh, Catalogue::open(path));
    const std::string note =
        std::format("the catalogue was damaged and is kept as {}; a new one was begun and is rebuilt from the store", aside);
    log_error("{}", note);
    return OpenedCatalogue{std::move(fresh), note};
}

}  // namespace sckpt
