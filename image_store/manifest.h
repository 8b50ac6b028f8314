// SPDX-License-Identifier: GPL-3.0-or-later
//
// The manifest of an image (doc/image-format.md): whose image it is, what a restore needs, its files, and of which chunks in which packs
// they are made; sealed. On disk: the chunk table first, so that it can be written as it comes, then the head as JSON, then the seal.
//
// A manifest can have millions of chunks, so its table is not loaded: it is read from its file, through a window.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"
#include "common/user_file.h"
#include "image_store/file_system.h"
#include "image_store/seal.h"

namespace sckpt {

inline constexpr int kManifestFormat = 3;
inline constexpr std::size_t kMaxBlock = 256u << 10;  // plain bytes of a block, and so of a chunk, at most
inline constexpr std::size_t kMaxPacks = 256;         // that one manifest refers to, at most

// A chunk is what is looked up and referred to: a few kilobytes with a name, its hash. A block is what is compressed and stored: chunks
// that were new and close to one another in their image, together.
enum class Codec : std::uint8_t {
    zero = 0,          // a chunk of zeros: nothing is stored
    raw = 1,
    zstd = 2,
    shuffle_zstd = 3,  // bytes transposed with stride 8, then zstd: for arrays of doubles
};

struct Chunk {
    Digest hash{};              // BLAKE3 of the plain bytes; zeros for Codec::zero
    std::uint64_t offset = 0;   // of its block in the pack, bytes
    std::uint32_t stored = 0;   // bytes of the block in the pack
    std::uint32_t plain = 0;    // bytes of the chunk
    std::uint32_t at = 0;       // where it begins in the plain bytes of the block
    std::uint16_t pack = 0;     // index into Manifest::packs
    Codec codec = Codec::zero;  // of the block
};

// A task that had ended when its checkpoint was made: there is no image of it.
struct EndedTask {
    std::string task;
    std::int32_t wait_status = 0;  // as waitpid(2) gave it
};

struct ImageIdentity {
    std::string cluster, user, account, node;  // Slurm's ClusterName, names, and the node that it was dumped on
    std::string task;                          // "batch", or "KEY.RANK": of a step's task
    std::uint32_t job_id = 0, uid = 0;
    std::int64_t submit_time = 0;              // of the run, Unix seconds
    std::uint32_t restart_count = 0;           // Slurm's, of the run
    std::int64_t job_row = 0;                  // the catalogue's rows, so that a rebuilt catalogue gives the same names again
    std::int64_t checkpoint_row = 0;
    std::uint32_t checkpoint = 0;              // number in the job
    std::uint32_t images = 1;                  // of this checkpoint: it is complete with all of them
    std::int64_t created = 0;                  // Unix seconds
    std::int64_t interval_seconds = 0, max_restarts = 0;  // the job's settings
    std::uint32_t frozen_ms = 0;
    std::string leader;                        // the task of this checkpoint whose manifest has `ended`
    std::vector<EndedTask> ended;              // of this checkpoint; only in the leader's
};

struct ImageNeeds {  // what a restore needs
    std::string backend, backend_version;       // "criu", "4.2.1"
    std::string architecture, kernel;           // uname(2)
    std::vector<std::string> cpu_flags;         // of /proc/cpuinfo, sorted
};

struct ImageFile {
    std::string name;               // below the image; checked by check_file_name
    std::uint64_t size = 0;
    std::uint64_t first_chunk = 0;  // its chunks follow one another in the table and make up its bytes in order
    std::uint64_t chunks = 0;
};

struct PackUse {
    std::string path;               // below the store
    std::uint64_t bytes = 0;        // size of the pack file
    std::uint64_t used = 0;         // of its bytes, by blocks with chunks that this manifest refers to; each block once
};

class Manifest {
   public:
    // Reads head and trailer, and checks that names, numbers and table fit together. The seal is not verified here: hash() tells what
    // SealKeys::verify wants, and nobody uses a manifest before it has. Errc::corrupt, Errc::unsupported (another format).
    static Result<Manifest> open(std::unique_ptr<File> file);
    // Reads the whole file: the digest that the catalogue has (of all bytes, hex), the seal, and what that is over. It reads where the head lies
    // and no more of it: this is what decides whether open() may be. Where no head can lie there is no seal, which then does not verify.
    // Errc::corrupt for another format: the number may be what is damaged.
    struct Hashes {
        ManifestParts parts;
        std::string digest;
        Seal seal;
    };
    static Result<Hashes> hash(File& file);
    // All that the head says of the image itself: without the packs that it lies in.
    Manifest of_image() const;

    ImageIdentity identity;
    ImageNeeds needs;
    std::vector<UserFile> user_files;
    std::vector<ImageFile> files;  // sorted by name
    std::vector<PackUse> packs;
    std::uint64_t chunk_count = 0;
    std::uint64_t plain_bytes = 0;
    std::uint32_t chunk_size = 0;  // that the image was cut by; images that refer to this one keep to it
    Seal seal;

    // Chunks first…first+to.size()-1 of the table. May be called from several threads.
    Result<> read_chunks(std::uint64_t first, std::span<Chunk> to) const;

   private:
    std::unique_ptr<File> file_;
};

// Asks who has the key for a seal: shows the head as it is written, and the digest of the rest.
using SealFn = std::function<Result<Seal>(std::string_view head, const Digest& rest)>;

// The head by itself, JSON (doc/image-format.md): everything above but the table and the seal.
std::string head_text(const Manifest& manifest);
// What is known before any file of the image was read.
std::string head_text(const ImageIdentity& identity, const ImageNeeds& needs, const std::vector<UserFile>& user_files);
Result<Manifest> parse_head(std::string_view text);  // Errc::corrupt, Errc::unsupported; read_chunks() is not to be called on it

}  // namespace sckpt
