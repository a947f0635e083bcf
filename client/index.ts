// The client SDK: submit transactions, get proofs, follow the order. See docs/client.md.

export type { ProvenTransaction, TransactionReceipt } from '../protocol/verify.ts';
export { type Accepted, Client, type ClientHead, type ReplicaStatus } from './client.ts';
export { type ConnectRequest, connect, type ReplicaAddress } from './connect.ts';
export { ClientError, type ClientErrorCode, type ErrorDetails } from './errors.ts';
export type { ClientEventName, ClientEvents, Listener } from './events.ts';
export type { FollowRequest, FollowStream } from './follow.ts';
export type { FollowedBlock } from './follow-chain.ts';
export type { ClientOptions } from './options.ts';
export { BundleReceipt, Receipt, verifyReceiptFile } from './receipt.ts';
export { type MessageSocket, type OpenSocket, openWebSocket, type SocketEvents } from './socket.ts';
