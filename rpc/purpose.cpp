// SPDX-License-Identifier: GPL-3.0-or-later
#include "rpc/purpose.h"

#include <blake3.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <sys/random.h>
#include <format>
#include <span>

namespace sckpt::rpc {
namespace {

std::string hex(std::span<const unsigned char> bytes) {
    std::string text;
    text.reserve(bytes.size() * 2);
    for (const unsigned char byte : bytes) text += std::format("{:02x}", byte);
    return text;
}

std::string digest(std::string_view bytes) {
    blake3_hasher hasher;
    blake3_hasher_init(&hasher);
    blake3_hasher_update(&hasher, bytes.data(), bytes.size());
    unsigned char out[BLAKE3_OUT_LEN];
    blake3_hasher_finalize(&hasher, out, sizeof out);
    return hex(out);
}

// The same bytes for the same message in both programs: fields in order of their numbers, maps sorted.
std::string serialize(const google::protobuf::Message& message) {
    std::string bytes;
    {
        google::protobuf::io::StringOutputStream stream(&bytes);
        google::protobuf::io::CodedOutputStream coded(&stream);
        coded.SetSerializationDeterministic(true);
        message.SerializePartialToCodedStream(&coded);
    }
    return bytes;
}

}  // namespace

std::string call_purpose(std::string_view method, const google::protobuf::Message* request) {
    if (!request) return std::string(method);
    return std::format("{} {}", method, digest(serialize(*request)));
}

Result<std::string> make_nonce() {
    unsigned char bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) return fail_errno("getrandom");
    return hex(bytes);
}

std::string welcome_purpose(std::string_view nonce) { return std::format("sckptctld-welcome {}", nonce); }

}  // namespace sckpt::rpc
