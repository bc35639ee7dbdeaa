// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 by the examples of FIPS 180-2 (appendix B), HMAC-SHA-256 by those of RFC 4231.
#include <string>

#include <gtest/gtest.h>

#include <spillway/transport/sha256.hpp>

namespace spillway::transport {
namespace {

std::string hmac(const std::string& key, std::string_view text) {
  return hex(hmac_sha256({reinterpret_cast<const std::uint8_t*>(key.data()), key.size()}, text));
}

TEST(Sha256Test, DigestsAreThoseOfTheStandard) {
  EXPECT_EQ(hex(sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hex(sha256(std::string(1'000'000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256Test, KeyedDigestsAreThoseOfTheStandard) {
  EXPECT_EQ(hmac(std::string(20, '\x0b'), "Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(hmac("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(hmac(std::string(20, '\xaa'), std::string(50, '\xdd')),
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
  EXPECT_EQ(
      hmac(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First"),
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(Sha256Test, AKeyOfABlockIsNotHashedAndALongerOneIs) {
  const std::string block(64, 'k');
  const std::string longer(65, 'k');
  EXPECT_NE(hmac(block, "text"), hmac(longer, "text"));
  const Sha256 hashed = sha256(longer);
  EXPECT_EQ(hmac(longer, "text"), hmac({hashed.begin(), hashed.end()}, "text"));
  EXPECT_EQ(hmac("", ""), hmac(std::string(64, '\0'), "")) << "a short key ends in zeros";
}

}  // namespace
}  // namespace spillway::transport
