// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/store_protocol.h"

#include <algorithm>
#include <chrono>
#include <format>

#include "image_store/names.h"

namespace sckpt {
namespace {

// A packet is one byte, whether more of the message follows or not, and text. Socket buffers hold several of them anywhere.
constexpr char kMore = '+', kLast = '.';
constexpr std::size_t kPacketText = 32u << 10;
constexpr std::size_t kMessageLimit = 32u << 20;  // a request with the names of a hundred thousand files
constexpr std::size_t kErrorLimit = 2000;

}  // namespace

std::string StoreChannel::Message::kind() const { return text_of(body, "kind"); }

Result<> StoreChannel::send(const Json& body, std::initializer_list<int> fds) {
    const std::string text = body.dump(-1, ' ', false, Json::error_handler_t::replace);
    const std::lock_guard lock(sending_);
    for (std::size_t at = 0; at < text.size(); at += kPacketText) {
        const bool first = at == 0, last = at + kPacketText >= text.size();
        const std::string packet = (last ? kLast : kMore) + text.substr(at, kPacketText);
        SCKPT_TRY(send_message(socket_.get(), packet, std::data(fds), first ? static_cast<int>(fds.size()) : 0));
    }
    return {};
}

Result<StoreChannel::Message> StoreChannel::receive(int deadline_ms) {
    using namespace std::chrono;
    const auto end = steady_clock::now() + milliseconds(deadline_ms);
    for (;;) {
        const auto left = ceil<milliseconds>(end - steady_clock::now()).count();
        SCKPT_ASSIGN(Received packet, receive_message(socket_.get(), deadline_ms < 0 ? -1 : static_cast<int>(std::max<std::int64_t>(left, 0))));
        if (packet.bytes.empty()) return Message{};
        for (UniqueFd& fd : packet.fds) fds_.push_back(std::move(fd));
        text_.append(packet.bytes, 1);
        if (text_.size() > kMessageLimit || fds_.size() > kMaxFds) return fail(Errc::internal, "a message of the store's process is too long");
        if (packet.bytes[0] == kMore) continue;
        Message message{Json::parse(std::exchange(text_, {}), nullptr, false), std::exchange(fds_, {})};
        if (!message.body.is_object()) return fail(Errc::internal, "a message of the store's process makes no sense");
        return message;
    }
}

std::string text_of(const Json& object, const char* name) {
    const auto found = object.is_object() ? object.find(name) : object.end();
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::uint64_t number_of(const Json& object, const char* name) {
    const auto found = object.is_object() ? object.find(name) : object.end();
    return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

bool flag_of(const Json& object, const char* name) {
    const auto found = object.is_object() ? object.find(name) : object.end();
    return found != object.end() && found->is_boolean() && found->get<bool>();
}

const Json& list_of(const Json& object, const char* name) {
    static const Json kNone = Json::array();
    const auto found = object.is_object() ? object.find(name) : object.end();
    return found != object.end() && found->is_array() ? *found : kNone;
}

std::vector<std::string> texts_of(const Json& object, const char* name) {
    std::vector<std::string> texts;
    for (const Json& item : list_of(object, name))
        if (item.is_string()) texts.push_back(item.get<std::string>());
    return texts;
}

Json error_message(const char* kind, const Error& error) {
    return {{"kind", kind}, {"code", static_cast<unsigned>(error.code)}, {"text", error.text}};
}

Error error_of(const Json& message) {
    const std::uint64_t code = number_of(message, "code");
    std::string text = text_of(message, "text").substr(0, kErrorLimit);
    std::ranges::replace_if(text, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; }, ' ');
    if (text.empty()) text = "the store's process does not say what failed";
    return {code <= static_cast<unsigned>(Errc::internal) ? static_cast<Errc>(code) : Errc::internal, text};
}

Json to_json(const StoredImage& image) {
    Json packs = Json::array();
    for (const PackUse& pack : image.packs) packs.push_back({{"path", pack.path}, {"bytes", pack.bytes}, {"used", pack.used}});
    return {{"manifest", image.manifest},
            {"digest", image.digest},
            {"plain_bytes", image.plain_bytes},
            {"new_bytes", image.new_bytes},
            {"packs", std::move(packs)}};
}

Result<StoredImage> stored_image_of(const Json& object) {
    StoredImage image{text_of(object, "manifest"), text_of(object, "digest"), number_of(object, "plain_bytes"), number_of(object, "new_bytes"), {}};
    SCKPT_TRY(check_store_path(image.manifest));
    SCKPT_TRY(digest_from_hex(image.digest));
    for (const Json& item : list_of(object, "packs")) {
        image.packs.push_back({text_of(item, "path"), number_of(item, "bytes"), number_of(item, "used")});
        SCKPT_TRY(check_store_path(image.packs.back().path));
    }
    return image;
}

Json to_json(const Space& space) { return {{"total", space.total}, {"free", space.free}}; }
Space space_of(const Json& object) { return {number_of(object, "total"), number_of(object, "free")}; }

}  // namespace sckpt
