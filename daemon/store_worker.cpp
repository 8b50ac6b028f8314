// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/store_worker.h"

#include <algorithm>
#include <format>
#include <utility>
#include <vector>

#include "daemon/watched_files.h"
#include "image_store/store_id.h"

namespace sckpt {
namespace {

using namespace std::chrono_literals;

// That it is the one which the catalogue knows. "": whichever it is, where nothing depends on it.
Result<> check_store(FileSystem& files, const Json& request) {
    const std::string wanted = text_of(request, "store_id");
    const auto store = read_store_id(files);
    if (!store && store.error().code == Errc::not_found)
        return fail(Errc::unavailable, std::format("there is no file {} in it: is the file system mounted that should be there (findmnt -T {})? A new "
                                                   "store is made once, where it is mounted, by `sckpt-clean make-store`",
                                                   kStoreIdFile, text_of(request, "store")));
    if (!store) return std::unexpected(store.error());
    if (wanted.empty() || store->id == wanted) return {};
    return fail(Errc::unavailable, std::format("this is store {} of cluster {}, not {}, which the catalogue knows: is the right file system mounted on "
                                               "this node (findmnt -T {})?", store->id, store->cluster, wanted, text_of(request, "store")));
}

Result<Json> work(StoreMaster& master, StoreChannel::Message message, const OpenStore& open) {
    if (message.kind() != "request") return fail(Errc::internal, "sckpt-store was given no request");
    if (const std::string version = text_of(message.body, "version"); version != SCKPT_VERSION)
        return fail(Errc::unsupported, std::format("sckptd is of version {}, its sckpt-store of version {}: restart sckptd", version, SCKPT_VERSION));
    SCKPT_ASSIGN(const std::unique_ptr<FileSystem> store, open(text_of(message.body, "store")));
    const auto files = watched(*store, [&master] { return master.alive(); });
    SCKPT_TRY(check_store(*files, message.body));
    StoreTask task{std::move(message.body), message.fds.empty() ? UniqueFd() : std::move(message.fds[0]), *files, Store(*files), master};
    return carry_out(task);
}

}  // namespace

Result<> serve_store(StoreChannel& channel, const OpenStore& open) {
    StoreMaster master(channel);
    SCKPT_ASSIGN(auto request, channel.receive(-1));
    auto done = work(master, std::move(request), open);
    if (!done) return channel.send(error_message("failed", done.error()));
    (*done)["kind"] = "done";
    return channel.send(*done);
}

// ---- what sckptd is told and asked ----

bool StoreMaster::time_to_speak(std::chrono::milliseconds after) {
    const auto now = std::chrono::steady_clock::now();
    if (now - spoken_ < after) return false;
    spoken_ = now;
    return true;
}

Result<> StoreMaster::alive() {
    {
        const std::lock_guard lock(mutex_);
        if (!time_to_speak(1s)) return {};
    }
    return channel_.send({{"kind", "alive"}});
}

Result<> StoreMaster::progress(std::uint64_t plain, std::uint64_t written) {
    {
        const std::lock_guard lock(mutex_);
        if ((plain == told_plain_ && written == told_written_) || !time_to_speak(500ms)) return {};
        told_plain_ = plain;
        told_written_ = written;
    }
    return channel_.send({{"kind", "progress"}, {"plain", plain}, {"written", written}});
}

Result<StoreChannel::Message> StoreMaster::answer(const char* kind) {
    SCKPT_ASSIGN(auto message, channel_.receive(-1));
    if (message.kind() == "refused") return std::unexpected(error_of(message.body));
    if (message.kind() != kind) return fail(Errc::internal, std::format("sckptd answers \"{}\", not \"{}\"", message.kind(), kind));
    return message;
}

Result<Seal> StoreMaster::seal(std::string_view head, const Digest& rest) {
    SCKPT_TRY(channel_.send({{"kind", "seal"}, {"head", head}, {"rest", to_hex(rest)}}));
    SCKPT_ASSIGN(const auto message, answer("sealed"));
    Seal seal{text_of(message.body, "key"), {}};
    SCKPT_ASSIGN(seal.value, digest_from_hex(text_of(message.body, "value")));
    return seal;
}

Result<UniqueFd> StoreMaster::next_piece() {
    SCKPT_TRY(channel_.send({{"kind", "next"}}));
    SCKPT_ASSIGN(auto message, answer("piece"));
    return message.fds.empty() ? UniqueFd() : std::move(message.fds[0]);
}

Result<std::unique_ptr<File>> StoreMaster::copy_manifest(FileSystem& store, const std::string& path) {
    SCKPT_ASSIGN(const auto file, store.open(path));
    SCKPT_ASSIGN(const std::uint64_t size, file->size());
    SCKPT_TRY(channel_.send({{"kind", "manifest"}, {"path", path}, {"bytes", size}}));
    SCKPT_ASSIGN(auto message, answer("copy"));
    if (message.fds.size() != 1) return fail(Errc::internal, "sckptd gives no file for a manifest");
    std::vector<std::byte> buffer(1u << 20);
    auto to = file_of(std::move(message.fds[0]), path);
    for (std::uint64_t at = 0; at < size;) {
        SCKPT_ASSIGN(const std::size_t got, file->read_at(at, std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), size - at))));
        if (got == 0) return fail(Errc::corrupt, path + " became shorter while it was read");
        SCKPT_TRY(to->write_at(at, std::span(buffer).first(got)));
        at += got;
    }
    return to;
}

Result<Manifest> StoreMaster::manifest(FileSystem& store, const std::string& path) {
    auto copy = copy_manifest(store, path);
    if (!copy) {
        Json unreadable = error_message("unreadable", copy.error());
        unreadable["path"] = path;
        SCKPT_TRY(channel_.send(unreadable));
        return std::unexpected(copy.error());
    }
    SCKPT_TRY(channel_.send({{"kind", "copied"}}));
    SCKPT_TRY(answer("go"));
    return Manifest::open(std::move(*copy));
}

}  // namespace sckpt
