// SPDX-License-Identifier: GPL-3.0-or-later
//
// Writing and reading of packs.
#include "image_store/pack.h"

#include <algorithm>
#include <array>
#include <format>

#include "image_store/wire.h"

namespace sckpt {
namespace {

constexpr std::size_t kPackPiece = 4u << 20;

std::array<std::byte, wire::kPackHeader> pack_header() {
    std::array<std::byte, wire::kPackHeader> header;
    wire::put_text(header.data(), wire::kPackMagic);
    wire::put(header.data() + 8, wire::kPackFormat);
    wire::put(header.data() + 12, static_cast<std::uint32_t>(wire::kPackRecord));
    return header;
}

// For what must be there, however short the file is found.
Result<> read_exactly(File& file, const std::string& path, std::uint64_t offset, std::span<std::byte> to) {
    SCKPT_ASSIGN(const std::size_t got, file.read_at(offset, to));
    if (got != to.size()) return fail(Errc::corrupt, std::format("the pack {} is shorter than it should be", path));
    return {};
}

}  // namespace

Appender::Appender(std::unique_ptr<File> file, std::size_t piece) : file_(std::move(file)), piece_(piece) {
    buffer_.reserve(piece);
}

Result<> Appender::append(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const auto some = bytes.first(std::min(bytes.size(), piece_ - buffer_.size()));
        buffer_.insert(buffer_.end(), some.begin(), some.end());
        bytes = bytes.subspan(some.size());
        if (buffer_.size() == piece_) SCKPT_TRY(flush());
    }
    return {};
}

Result<> Appender::flush() {
    if (buffer_.empty()) return {};
    SCKPT_TRY(file_->write_at(written_, buffer_));
    file_->start_writing(written_, buffer_.size());
    written_ += buffer_.size();
    buffer_.clear();
    return {};
}

Result<> Appender::sync() {
    SCKPT_TRY(flush());
    return file_->sync();
}

Result<> Appender::read_back(std::uint64_t offset, std::span<std::byte> to) const {
    if (offset < written_) {
        const auto first = to.first(std::min<std::uint64_t>(to.size(), written_ - offset));
        SCKPT_ASSIGN(const std::size_t got, file_->read_at(offset, first));
        if (got != first.size()) return fail(Errc::io, "a file that is being written has become shorter");
        to = to.subspan(got);
        offset += got;
    }
    if (!to.empty()) std::copy_n(buffer_.begin() + static_cast<std::ptrdiff_t>(offset - written_), to.size(), to.begin());
    return {};
}

PackWriter::PackWriter(std::unique_ptr<File> file) : out_(std::move(file), kPackPiece) {}

Result<> PackWriter::write_header() {
    const auto header = pack_header();
    hash_.update(header.data(), header.size());
    return out_.append(header);
}

Result<std::uint64_t> PackWriter::append(std::span<const std::byte> bytes) {
    if (out_.size() == 0) SCKPT_TRY(write_header());
    const std::uint64_t offset = out_.size();
    SCKPT_TRY(out_.append(bytes));
    return offset;
}

Result<> PackWriter::add_to_index(const Chunk& chunk) {
    if (index_ == 0) index_ = out_.size();
    std::array<std::byte, wire::kPackRecord> record{};
    wire::put(record.data(), chunk.offset);
    wire::put(record.data() + 8, chunk.stored);
    record[12] = static_cast<std::byte>(chunk.codec);
    hash_.update(record.data(), record.size());
    ++records_;
    return out_.append(record);
}

Result<> PackWriter::finish() {
    std::array<std::byte, wire::kPackTrailer> trailer;
    wire::put(trailer.data(), index_);
    wire::put(trailer.data() + 8, records_);
    hash_.update(trailer.data(), 16);
    const Digest digest = hash_.digest();
    std::ranges::copy(std::as_bytes(std::span(digest)), trailer.begin() + 16);
    wire::put_text(trailer.data() + 48, wire::kPackEndMagic);
    SCKPT_TRY(out_.append(trailer));
    return out_.sync();
}

Result<std::unique_ptr<File>> open_pack(FileSystem& files, const std::string& path, std::uint64_t bytes) {
    auto file = files.open(path);
    if (!file && file.error().code == Errc::not_found) return fail(Errc::corrupt, std::format("the pack {} is missing", path));
    if (!file) return std::unexpected(file.error());
    SCKPT_ASSIGN(const std::uint64_t size, (*file)->size());
    if (size != bytes || size < wire::kPackHeader + wire::kPackTrailer)
        return fail(Errc::corrupt, std::format("the pack {} has {} bytes, not {}", path, size, bytes));
    std::array<std::byte, wire::kPackHeader> header;
    std::array<std::byte, wire::kPackTrailer> trailer;
    SCKPT_TRY(read_exactly(**file, path, 0, header));
    SCKPT_TRY(read_exactly(**file, path, size - trailer.size(), trailer));
    if (header != pack_header())
        return fail(Errc::corrupt, std::format("{} is no pack that this sckpt reads: its first bytes are wrong", path));
    if (!wire::is_text(trailer.data() + 48, wire::kPackEndMagic))
        return fail(Errc::corrupt, std::format("the pack {} has no proper end", path));
    return file;
}

PackReader::PackReader(FileSystem& files, const Manifest& manifest)
    : files_(files), manifest_(manifest), open_(manifest.packs.size()) {}

Result<File*> PackReader::file(std::uint16_t pack) {
    const std::lock_guard lock(mutex_);
    if (!open_[pack]) {
        SCKPT_ASSIGN(open_[pack], open_pack(files_, path(pack), manifest_.packs[pack].bytes));
    }
    return open_[pack].get();
}

Result<> PackReader::read(std::uint16_t pack, std::uint64_t offset, std::span<std::byte> to) {
    SCKPT_ASSIGN(File* const from, file(pack));
    return read_exactly(*from, path(pack), offset, to);
}

Result<> PackReader::verify_index(std::uint16_t pack) {
    SCKPT_ASSIGN(File* const from, file(pack));
    const std::uint64_t trailer_at = manifest_.packs[pack].bytes - wire::kPackTrailer;
    std::array<std::byte, wire::kPackTrailer> trailer;
    SCKPT_TRY(read_exactly(*from, path(pack), trailer_at, trailer));
    const auto index = wire::get<std::uint64_t>(trailer.data()), records = wire::get<std::uint64_t>(trailer.data() + 8);
    const auto broken = [&] {
        return fail(Errc::corrupt, std::format("the index of the pack {} does not match its hash", path(pack)));
    };
    if (index < wire::kPackHeader || index > trailer_at || (trailer_at - index) / wire::kPackRecord != records) return broken();
    Blake3 hash;
    const auto header = pack_header();
    hash.update(header.data(), header.size());
    std::vector<std::byte> buffer(1u << 20);
    for (std::uint64_t at = index; at < trailer_at;) {
        const auto some = std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), trailer_at - at));
        SCKPT_TRY(read_exactly(*from, path(pack), at, some));
        hash.update(some.data(), some.size());
        at += some.size();
    }
    hash.update(trailer.data(), 16);
    const Digest digest = hash.digest();
    return std::ranges::equal(std::as_bytes(std::span(digest)), std::span(trailer).subspan(16, 32)) ? Result<>{} : broken();
}

}  // namespace sckpt
