export { Decrypter } from "age-encryption";
