// SPDX-License-Identifier: GPL-3.0-or-later
//
// The catalogue's side of the store: which files the images need, what becomes garbage, what may be removed. Every rule about
// that is decided here, inside the transaction that acts on it.
#include <algorithm>
#include <charconv>

#include "image_store/catalogue_impl.h"
#include "image_store/names.h"

namespace sckpt {
namespace {

Catalogue::Garbage read_garbage(const Statement& row) {
    return {.path = row.get<std::string>(0), .bytes = row.get<std::uint64_t>(1)};
}

Result<> check_stored(const StoredImage& image) {
    if (image.digest.empty()) return fail(Errc::invalid, "an image is not stored without the digest of its manifest");
    SCKPT_TRY(check_store_path(image.manifest));
    std::set<std::string_view> paths{image.manifest};
    for (const PackUse& pack : image.packs) {
        SCKPT_TRY(check_store_path(pack.path));
        if (!paths.insert(pack.path).second) return fail(Errc::invalid, pack.path + " is named twice by " + image.manifest);
    }
    return {};
}

struct NamedCheckpoint {
    RowId job = 0;
    std::uint32_t number = 0;
};

template <class T>
bool take_number(std::string_view& text, T& number) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return error == std::errc{};
}

bool take_word(std::string_view& text, std::string_view word) {
    if (!text.starts_with(word)) return false;
    text.remove_prefix(word.size());
    return true;
}

// "job-4711-8/ckpt-3-…" is of checkpoint 3 of the job in row 8.
std::optional<NamedCheckpoint> checkpoint_in_name(std::string_view path) {
    NamedCheckpoint found;
    std::uint32_t job_id = 0;
    if (take_word(path, "job-") && take_number(path, job_id) && take_word(path, "-") && take_number(path, found.job) &&
        take_word(path, "/ckpt-") && take_number(path, found.number) && take_word(path, "-"))
        return found;
    return std::nullopt;
}

Result<> check_own_name(const std::string& path, const CheckpointRow& row) {
    const auto name = checkpoint_in_name(path);
    if (name && name->job == row.job && name->number == row.number) return {};
    return fail(Errc::invalid, std::format("{} is no name of checkpoint {} of the job in row {}", path, row.number, row.job));
}

Result<> check_own_names(Database& database, const StoredImage& image, const CheckpointRow& row) {
    SCKPT_TRY(check_own_name(image.manifest, row));
    for (const PackUse& pack : image.packs) {
        SCKPT_ASSIGN(const auto known, number(database.query(sql::kPackByPath, pack.path)));
        if (!known) SCKPT_TRY(check_own_name(pack.path, row));
    }
    return {};
}

}  // namespace

std::uint32_t job_id_in_name(std::string_view path) {
    std::uint32_t job_id = 0;
    return take_word(path, "job-") && take_number(path, job_id) && path.starts_with('-') ? job_id : 0;
}

// ---- inside a transaction ----

Result<bool> Catalogue::Impl::in_use(RowId checkpoint, std::int64_t now) {
    SCKPT_ASSIGN(const auto lease, number(database.query(sql::kLease, checkpoint)));
    if (lease.value_or(0) > now) return true;
    SCKPT_ASSIGN(const auto is_base, number(database.query(sql::kIsBase, checkpoint)));
    return is_base.value_or(0) != 0;
}

Result<> Catalogue::Impl::check_all_given(const CheckpointRow& row, const std::vector<StoredTask>& images) {
    std::set<std::string_view> tasks;
    for (const StoredTask& image : images) {
        SCKPT_ASSIGN(const auto id, number(database.query(sql::kImageOfTask, row.id, image.task)));
        if (!id || !tasks.insert(image.task).second)
            return fail(Errc::invalid, std::format("checkpoint {} {} an image of task {}", row.number, id ? "has but" : "does not have",
                                                   image.task));
    }
    if (tasks.size() != row.images)
        return fail(Errc::invalid, std::format("{} of the {} images of checkpoint {} are stored", tasks.size(), row.images, row.number));
    return {};
}

Result<std::set<RowId>> Catalogue::Impl::packs_of(RowId checkpoint, const std::string& task) {
    SCKPT_ASSIGN(const auto packs, all_rows(database.query(sql::kPacksOfImage, checkpoint, task),
                                            [](const Statement& row) { return row.get<RowId>(0); }));
    return std::set<RowId>(packs.begin(), packs.end());
}

Result<> Catalogue::Impl::store_image(RowId job, RowId image, const StoredImage& stored, std::set<RowId>& known) {
    SCKPT_TRY(check_stored(stored));
    std::uint64_t in_new_packs = 0;
    SCKPT_TRY(database.execute(sql::kRemoveRefs, image));
    for (const PackUse& pack : stored.packs) {
        SCKPT_ASSIGN(auto id, number(database.query(sql::kPackByPath, pack.path)));
        if (!id) {
            SCKPT_ASSIGN(id, number(database.query(sql::kAddPack, job, pack.path, pack.bytes)));
            known.insert(id.value_or(0));
            in_new_packs += pack.bytes;
        }
        if (!known.contains(id.value_or(0)))
            return fail(Errc::invalid,
                        std::format("{} refers to {}, which is no pack of its base: nothing keeps that from being removed",
                                    stored.manifest, pack.path));
        SCKPT_TRY(database.execute(sql::kAddRef, image, id.value_or(0), pack.used));
    }
    const std::uint64_t manifest_bytes = stored.new_bytes - std::min(stored.new_bytes, in_new_packs);
    return database.execute(sql::kSetImageStored, image, stored.manifest, stored.digest, stored.plain_bytes, manifest_bytes);
}

Result<> Catalogue::Impl::add_garbage(const Garbage& file) {
    const bool manifest = file.path.ends_with(kManifestSuffix);
    return database.execute(sql::kAddGarbage, file.path, file.bytes, !manifest);
}

Result<> Catalogue::Impl::drop_unused_packs(RowId job) {
    SCKPT_ASSIGN(const auto packs, all_rows(database.query(sql::kRemoveUnusedPacks, job), read_garbage));
    for (const Garbage& pack : packs) SCKPT_TRY(add_garbage(pack));
    return {};
}

// ---- what a checkpoint needs ----

Result<> Catalogue::complete(RowId checkpoint, const std::vector<StoredTask>& images, std::int64_t now) {
    return impl_->write([&]() -> Result<> {
        SCKPT_ASSIGN(const CheckpointRow row, impl_->find_in(checkpoint, {CheckpointState::captured}, CheckpointState::complete));
        SCKPT_TRY(impl_->check_all_given(row, images));
        for (const StoredTask& each : images) {
            SCKPT_ASSIGN(const auto id, number(impl_->database.query(sql::kImageOfTask, checkpoint, each.task)));
            SCKPT_ASSIGN(std::set<RowId> known, impl_->packs_of(row.base, each.task));
            SCKPT_TRY(check_own_names(impl_->database, each.image, row));
            SCKPT_TRY(impl_->store_image(row.job, id.value_or(0), each.image, known));
            SCKPT_ASSIGN(const auto suspect, number(impl_->database.query(sql::kRefersToSuspect, id.value_or(0))));
            if (suspect.value_or(0) != 0)
                return fail(Errc::corrupt, std::format("checkpoint {} builds on one that was found bad while it was stored", row.number));
        }
        return impl_->set_stored(checkpoint, images, now);
    });
}

Result<> Catalogue::Impl::set_stored(RowId checkpoint, const std::vector<StoredTask>& images, std::int64_t now) {
    std::uint64_t bytes = 0, new_bytes = 0;
    std::uint32_t frozen_ms = 0;
    for (const StoredTask& each : images) {
        bytes += each.image.plain_bytes;
        new_bytes += each.image.new_bytes;
        frozen_ms = std::max(frozen_ms, each.frozen_ms);
    }
    SCKPT_TRY(database.execute(sql::kSetStored, checkpoint, bytes, new_bytes, frozen_ms, now));
    return set_state(checkpoint, CheckpointState::complete);
}

// As long as the job has not ended, there is always something to restart it from once there was.
Result<> Catalogue::Impl::refuse_needed(const CheckpointRow& row, std::int64_t now) {
    const auto kept = [&](std::string_view why) {
        return fail(Errc::denied, std::format("checkpoint {} is kept: {}", row.number, why));
    };
    if (row.pinned) return kept("it is pinned");
    SCKPT_ASSIGN(const bool used, in_use(row.id, now));
    if (used) return kept("a restore reads it, or a drain under way refers to it");
    if (row.state != CheckpointState::complete) return {};
    SCKPT_ASSIGN(const auto ended, number(database.query(sql::kJobEnded, row.job)));
    SCKPT_ASSIGN(const auto newest, number(database.query(sql::kNewestCompleteNumber, row.job, row.step)));
    if (ended.value_or(0) == 0 && newest == row.number) return kept("it is the newest complete one of a job that has not ended");
    return {};
}

Result<> Catalogue::remove_checkpoint(RowId checkpoint, std::int64_t now) {
    return impl_->write([&]() -> Result<> {
        SCKPT_ASSIGN(const CheckpointRow row, impl_->find(checkpoint));
        SCKPT_TRY(impl_->refuse_needed(row, now));
        SCKPT_ASSIGN(const auto manifests, all_rows(impl_->database.query(sql::kManifests, checkpoint), read_garbage));
        SCKPT_TRY(impl_->database.execute(sql::kRemoveCheckpoint, checkpoint));
        for (const Garbage& manifest : manifests) SCKPT_TRY(impl_->add_garbage(manifest));
        return impl_->drop_unused_packs(row.job);
    });
}

Result<RowId> Catalogue::Impl::change_over(const Compacted& image, std::set<RowId>& made, std::int64_t now) {
    const auto changed = [&] {
        return fail(Errc::busy,
                    std::format("the checkpoint in row {} has changed or is in use: its packs are compacted another time",
                                image.checkpoint));
    };
    SCKPT_ASSIGN(const auto row, first_row(database.query(sql::kCheckpoint, image.checkpoint), read_checkpoint));
    if (!row || row->state != CheckpointState::complete) return changed();
    SCKPT_ASSIGN(const auto id, number(database.query(sql::kImageOfDigest, image.checkpoint, image.task, image.old_digest)));
    SCKPT_ASSIGN(const bool used, in_use(image.checkpoint, now));
    if (!id || used) return changed();
    SCKPT_ASSIGN(const auto manifest, first_row(database.query(sql::kManifest, *id), read_garbage));
    SCKPT_ASSIGN(std::set<RowId> known, packs_of(image.checkpoint, image.task));
    const std::set<RowId> old = known;
    known.insert(made.begin(), made.end());
    SCKPT_TRY(store_image(row->job, *id, image.image, known));
    std::ranges::set_difference(known, old, std::inserter(made, made.end()));
    SCKPT_TRY(add_garbage(*manifest));
    return row->job;
}

Result<> Catalogue::compacted(const std::vector<Compacted>& images, std::int64_t now) {
    return impl_->write([&]() -> Result<> {
        std::set<RowId> made, jobs;
        for (const Compacted& image : images) {
            SCKPT_ASSIGN(const RowId job, impl_->change_over(image, made, now));
            jobs.insert(job);
        }
        for (const RowId job : jobs) SCKPT_TRY(impl_->drop_unused_packs(job));
        return {};
    });
}

// ---- files ----

Result<std::vector<Catalogue::Garbage>> Catalogue::garbage(std::size_t limit) const {
    const std::scoped_lock lock(impl_->mutex);
    return all_rows(impl_->database.query(sql::kGarbage, limit), read_garbage);
}

Result<> Catalogue::garbage_removed(const std::vector<std::string>& paths) {
    return impl_->write([&]() -> Result<> {
        for (const std::string& path : paths) SCKPT_TRY(impl_->database.execute(sql::kRemoveGarbage, path));
        return {};
    });
}

Result<Catalogue::FileUse> Catalogue::Impl::use(const std::string& path) {
    SCKPT_ASSIGN(const auto named, number(database.query(sql::kIsNamed, path)));
    if (named.value_or(0) != 0) return FileUse::named;
    SCKPT_ASSIGN(const auto is_garbage, number(database.query(sql::kIsGarbage, path)));
    if (is_garbage.value_or(0) != 0) return FileUse::garbage;
    const auto name = checkpoint_in_name(path);
    if (!name) return FileUse::unknown;
    SCKPT_ASSIGN(const auto row, first_row(database.query(sql::kCheckpointByNumber, name->job, name->number), read_checkpoint));
    const bool under_way = row && (row->state == CheckpointState::preparing || row->state == CheckpointState::captured);
    return under_way ? FileUse::under_way : FileUse::unknown;
}

// One by one: a list of a million files must not hold up a restart.
Result<std::vector<Catalogue::FileUse>> Catalogue::uses(const std::vector<std::string>& paths) const {
    std::vector<FileUse> answer;
    answer.reserve(paths.size());
    for (const std::string& path : paths) {
        const std::scoped_lock lock(impl_->mutex);
        SCKPT_ASSIGN(const FileUse use, impl_->use(path));
        answer.push_back(use);
    }
    return answer;
}

Result<> Catalogue::add_garbage(const std::vector<Garbage>& files) {
    return impl_->write([&]() -> Result<> {
        for (const Garbage& file : files) {
            SCKPT_TRY(check_store_path(file.path));
            SCKPT_ASSIGN(const FileUse use, impl_->use(file.path));
            if (use == FileUse::named || use == FileUse::under_way)
                return fail(Errc::denied, file.path + " is no garbage: it is a checkpoint's");
            SCKPT_TRY(impl_->add_garbage(file));
        }
        return {};
    });
}

Result<std::vector<PackRow>> Catalogue::packs(RowId job) const {
    const std::scoped_lock lock(impl_->mutex);
    return all_rows(impl_->database.query(sql::kPacks, job), [](const Statement& row) {
        return PackRow{.path = row.get<std::string>(0),
                       .bytes = row.get<std::uint64_t>(1),
                       .used = row.get<std::uint64_t>(2),
                       .images = row.get<std::uint32_t>(3),
                       .task = row.get<std::string>(4)};
    });
}

}  // namespace sckpt
